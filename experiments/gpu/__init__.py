"""What a GPU is asked: one entry, `python -m experiments.gpu`, that runs in parts within a time budget."""
