"""Archives built, checked and loaded, and the record of which version is served."""
