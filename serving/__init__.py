"""Runs inside TorchServe and beside it. From the other packages it imports only the decoder of `data`."""


class ServingError(Exception):
    """A server, an archive or a request fails: what is wrong, where, and what to do, for the person."""
