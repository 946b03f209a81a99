"""Bytes of an image file to pixels: what `prepare` reads with, and what is packed as it stands into every archive."""
