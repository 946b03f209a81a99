"""The studies that there are, as a list for the terminal."""

from pipelines.studies import study


def text() -> str:
    """A line per study: its name, and the question that it answers."""
    lines = [f"{name:<4} {study.load(name).question}" for name in study.names()]
    return "\n".join([*lines, "", "Run one: foundry study M1. All of them: foundry study --all --scale quick."])
