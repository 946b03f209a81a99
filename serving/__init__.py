"""Runs inside TorchServe and beside it; of the other packages it imports the decoder of `data` alone."""


class ServingError(Exception):
    """What is wrong with the server, an archive or a request, and what to do: one sentence for the person."""
