"""Turn step scores and gold annotations into results."""
