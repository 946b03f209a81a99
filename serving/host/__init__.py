"""This machine's side of a server: its folder, lock and files, the promoted models, the frame of a command."""
