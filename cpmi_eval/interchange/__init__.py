"""Results in the forms that other programs read: lm-eval's files, and metadata of model cards."""
