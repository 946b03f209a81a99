"""A whole folder of images, and the table of their embeddings."""
