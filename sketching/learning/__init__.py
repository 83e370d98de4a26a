"""Training of the lift: the objective, the task of the training program, and fine-tuning to a family of matrices."""
