"""Build, check and load archives, and record which versions are served."""
