"""Layer 0: tensors to encoders. Knows no file format of data, no MLflow, no pipeline."""


class CheckpointError(Exception):
    """The weights that are given do not fit: one sentence for the person."""
