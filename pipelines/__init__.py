"""Layer 1: the only place where data and models meet, and the only side effects."""
