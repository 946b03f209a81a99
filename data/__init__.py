"""Layer 0: images to tensors. Knows nothing of models."""


class DataError(Exception):
    """What is wrong with the images or their folder, where, and what to do: one sentence for the person."""
