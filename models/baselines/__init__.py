"""Training with labels: what the methods must beat when labels are few."""
