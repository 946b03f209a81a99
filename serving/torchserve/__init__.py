"""Everything that is specific to TorchServe. It can be deleted if TorchServe is replaced."""
