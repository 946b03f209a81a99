"""Layer 0: tensors to encoders. It knows no image files, no MLflow and no pipeline."""


class CheckpointError(Exception):
    """Weights cannot be used: what is wrong, where, and what to do, for the person."""
