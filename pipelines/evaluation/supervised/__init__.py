"""Training with labels: which training runs there are, one of them, and all of a stage."""
