"""What is wrong with a training run: a name, the figure that shows it, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Row = Mapping[str, float]  # of a history
Name = Literal["healthy", "dimensional collapse", "complete collapse", "uniform collapse", "undertrained", "overfitted",
               "diverged", "trivial task", "not judged"]  # fmt: skip
HOPELESS = {"complete collapse", "uniform collapse", "diverged"}  # more steps do not mend it; a few dimensions, they do


@dataclass(frozen=True)
class Diagnosis:
    """A name and two texts for people, each of one or two full sentences.

    because: the figure that shows it; change: what to do, with the key of params.yaml and its value now.
    """

    name: Name
    because: str
    change: str

    def __str__(self) -> str:
        return f"{self.name.capitalize()}. {self.because} {self.change}"


def undertrained(name: str, epochs: int, lr: float, because: str) -> Diagnosis:
    """The diagnosis of the method `name`, which was trained for so many epochs at this learning rate."""
    change = f"Train longer: raise {name}.epochs (now {epochs}), or raise {name}.optim.lr (now {lr})."
    return Diagnosis("undertrained", because, change)


def percent(share: float) -> str:
    """0.123 → 12.3 %."""
    return f"{100 * share:.1f} %"
