"""What studies measure of a cell's encoder beside the probe. Each is a stage of the cells (workspace.READINGS)."""
