"""What each learned part gains over the same pipeline untrained."""
