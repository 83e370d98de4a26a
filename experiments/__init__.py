"""One script per claim. Each takes `--smoke`, prints a table and writes JSON; nothing imports this package."""
