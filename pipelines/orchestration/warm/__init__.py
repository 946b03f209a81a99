"""A Python that has imported the slow libraries, and forks: its server, the `python` of the stages, and its handle."""
