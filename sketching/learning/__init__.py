"""Training of the random features.

The objective, the task of the training program, and fine-tuning to a family of matrices.
"""
