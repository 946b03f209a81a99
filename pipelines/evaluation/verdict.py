"""The verdict as an object: one answer, its figures, and what a reader must know before trusting it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipelines.evaluation.approach import title


@dataclass(frozen=True)
class Figure:
    """One number of the verdict: `Difference`, `+1.3 points`, `95 % interval −2.7 to +5.3`."""

    label: str
    value: str
    note: str

    def __str__(self) -> str:
        return f"{self.label}: {self.value} ({self.note})."


@dataclass(frozen=True)
class Verdict:
    """Sentences for people.

    answer: the one sentence to read; figures: at most three; health: one line per training run; caveats: what weakens
    the answer; champion: who is served and why; advice: what to do with it; continued: what it brought to continue a
    pretraining, of those that started from weights.
    """

    answer: str
    figures: tuple[Figure, ...]
    health: tuple[str, ...]
    caveats: tuple[str, ...]
    champion: str
    advice: tuple[str, ...]
    continued: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """Every sentence, in the order in which they are read."""
        yield self.answer
        yield from self.continued
        yield from map(str, self.figures)
        yield from (*self.caveats, *self.health, self.champion, *self.advice)


def health(diagnoses: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """One line per training run, from the measurements that need no labels."""
    return tuple(f"{title(m)}: {d['name']}. {d['because']} {d['change']}" for m, d in diagnoses.items())
