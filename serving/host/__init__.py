"""What a server needs of this machine: its folder, lock and files, the promoted models, and the commands' start."""
