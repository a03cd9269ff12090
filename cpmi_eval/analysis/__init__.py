"""What is made of finished runs: compared, tested, diagnosed, held against each other; nothing here loads a model."""
