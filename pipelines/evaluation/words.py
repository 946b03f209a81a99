"""Lists and label counts in words."""

from collections.abc import Sequence

from pipelines.evaluation.scores import ALL


def counts(labels: Sequence[str]) -> str:
    """`with 1, 5 and 10 labels a class`, `with all labels`, `with 50 labels a class and with all`."""
    few = [n for n in labels if n != ALL]
    if not few:
        return "with all labels"
    plural = "" if few == ["1"] else "s"
    return f"with {listed(few)} label{plural} a class" + (" and with all" if ALL in labels else "")


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
