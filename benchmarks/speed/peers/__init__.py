"""The libraries with which the engine is compared. They have their own environment."""
