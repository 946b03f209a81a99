"""Augmentation: crops, flips, colours and blur; random numbers are drawn first, then applied to the images."""
