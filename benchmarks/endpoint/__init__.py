"""The servers under load, under attack and beside each other."""
