"""Embed a whole folder of images into a table."""
