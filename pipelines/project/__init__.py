"""The folder that the commands work in: its params, its places, its histories, and the frame of a stage."""
