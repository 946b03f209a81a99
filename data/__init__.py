"""Layer 0: images to tensors. It imports nothing of the other packages."""


class DataError(Exception):
    """Images or their folder cannot be used: what is wrong, where, and what to do, for the person."""
