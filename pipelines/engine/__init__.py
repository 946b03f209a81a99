"""The training loop, its input, its measurements and its health checks."""
