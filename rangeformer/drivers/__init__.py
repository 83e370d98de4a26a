"""The public functions: each checks its arguments, computes, and verifies the result."""
