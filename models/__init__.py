"""Floor 0: tensors to encoders. Knows no file format of data, no MLflow, no pipeline."""
