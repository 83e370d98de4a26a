"""What sequence-to-sequence models learn of linear algebra."""
