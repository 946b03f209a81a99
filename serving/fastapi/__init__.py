"""Connections, request bodies and batching of the FastAPI server."""
