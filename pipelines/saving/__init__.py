"""Files of a training run that are complete on the disk, or not there at all, whenever it is killed."""
