"""The project folder: its params, paths and histories, and the code that every stage starts with."""
