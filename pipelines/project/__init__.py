"""The project folder: its params, paths and histories, and the code that every stage starts with."""


class ConfigError(Exception):
    """A parameter, its value and what is allowed: whole sentences for the person."""
