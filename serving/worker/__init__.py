"""Exactly what is packed into an archive: requests in, embeddings out, and what is counted."""
