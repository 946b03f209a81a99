"""What a check finds."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """What is so and, unless it is in order, what to do about it."""

    level: Level
    what: str
    cure: str = ""


def ok(what: str) -> Finding:
    """All is in order."""
    return Finding("ok", what)


def warning(what: str, cure: str) -> Finding:
    """Something that may stop a command later."""
    return Finding("warning", what, cure)


def fault(what: str, cure: str) -> Finding:
    """Something that stops a command."""
    return Finding("fault", what, cure)
