"""Runs inside TorchServe and beside it; imports nothing of the other floors."""


class ServingError(Exception):
    """What is wrong with the server, an archive or a request, and what to do: one sentence for the person."""
