"""One script per claim. Each takes `--smoke`, shows progress, prints a table and writes JSON; nothing imports this package."""
