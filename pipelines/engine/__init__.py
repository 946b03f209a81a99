"""The training loop, and all that feeds it, watches it and saves it."""
