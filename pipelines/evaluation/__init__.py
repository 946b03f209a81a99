"""How encoders are read and compared, and what may be said about them."""
