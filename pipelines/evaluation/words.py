"""Lists, label counts and the start of a sentence, in words."""

from collections.abc import Sequence

from pipelines.evaluation.scores import ALL


def at(labels: Sequence[str], last: str = "and") -> str:
    """`at 1, 5 and 10 labels per class`, `with all labels`, `at 50 labels per class and with all labels`."""
    few = [n for n in labels if n != ALL]
    plural = "" if few == ["1"] else "s"
    parts = [f"at {listed(few, last)} label{plural} per class"] if few else []
    return f" {last} ".join([*parts, *(["with all labels"] if ALL in labels else [])])


def listed(names: Sequence[str], last: str = "and") -> str:
    """`SimCLR, MAE and DINO`."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def capital(text: str) -> str:
    """The text as a sentence begins. A name such as kNN stays as its authors write it."""
    return text[:1].upper() + text[1:] if text[1:2].islower() else text


def percent(value: float) -> str:
    """`96.5 %`."""
    return f"{value:.1f} %"


def seeds(n: int) -> str:
    """`one seed`, `two seeds`, `5 seeds`."""
    return f"{ {1: 'one', 2: 'two'}.get(n, n) } seed{'s' * (n != 1)}"
