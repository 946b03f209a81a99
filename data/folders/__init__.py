"""A folder as people have it: what its layout means, which files are images, and what is to be said about it."""
