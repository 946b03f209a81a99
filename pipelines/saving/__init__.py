"""What an unfinished training leaves on the disk: whole or not there at all, whenever it is killed."""
