"""Parts of the task that trains the RangeFormer's features: problems, objectives, validation."""
