"""Layer 0: tensors to encoders. Knows no file format of data, no MLflow, no pipeline."""


class CheckpointError(Exception):
    """Weights cannot be used: what is wrong, where, and what to do, for the person."""
