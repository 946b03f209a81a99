"""The training loop, and what feeds it, measures it and watches it."""
