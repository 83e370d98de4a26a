"""What several experiments share: data, matrices, options, reports, pictures."""
