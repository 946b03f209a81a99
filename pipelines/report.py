"""The table at the end: methods and their controls, one line each."""

import json

from models import methods
from pipelines import stage
from pipelines.config import Config

METHODS = tuple(methods.METHODS)
Table = list[dict[str, str]]


def read_metrics() -> dict[str, dict[str, dict[str, float]]]:
    """Method → who (the method, its random encoder, pixels) → figures."""
    return {m: json.loads(stage.artifact(m, "metrics.json").read_text()) for m in METHODS}


def table(c: Config, metrics: dict[str, dict[str, dict[str, float]]]) -> Table:
    """Top-1 in percent on test, mean ± sd over the label draws; the controls after the methods."""
    rows = {who: figures for m in METHODS for who, figures in metrics[m].items()}
    order = [*METHODS, *(f"random-{m}" for m in METHODS), "pixels"]
    labelled = "knn_all" in rows[METHODS[0]]
    return [line(who, rows[who], c, labelled) for who in order]


def line(who: str, f: dict[str, float], c: Config, labelled: bool) -> dict[str, str]:
    shown = {"encoder": who}
    if labelled:
        for n in c.probe.shots:
            if f"linear_{n}" in f:
                few = f"{n} label{'s' if n > 1 else ''} a class"
                shown[few] = f"{f[f'linear_{n}']:.1f} ± {f.get(f'linear_{n}_sd', 0.0):.1f}"
        shown["all labels"] = f"{f['linear_all']:.1f}"
        shown["kNN"] = f"{f['knn_all']:.1f}"
    shown["retrieval"] = f"{f['retrieval']:.1f}"
    return shown


def verdicts(c: Config, metrics: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Where a method is not above its own controls, or hardly; one sentence if it is clearly above everywhere."""
    keys = [k for k in [*(f"linear_{n}" for n in c.probe.shots), "linear_all", "knn_all"] if k in metrics["mae"]["mae"]]
    if not keys:
        return ["no labels: only the retrieval of a second view was measured"]
    said = []
    for m in METHODS:
        for control in (f"random-{m}", "pixels"):
            ours, theirs = metrics[m][m], metrics[m][control]
            below = [k for k in keys if ours[k] <= theirs[k]]
            hardly = [k for k in keys if 0 < ours[k] - theirs[k] < max(f.get(f"{k}_sd", 0.0) for f in (ours, theirs))]
            if below:
                said.append(f"{m} is not above {control} in {', '.join(below)}")
            if hardly:
                said.append(f"{m} is above {control} by less than one sd of the draws in {', '.join(hardly)}")
    return said or ["every method is above its own random encoder and above raw pixels in every column"]


def head(c: Config, metrics: dict[str, dict[str, dict[str, float]]]) -> str:
    """What the figures of the table are."""
    if "knn_all" not in metrics["mae"]["mae"]:
        return "images of the test split whose second view finds the first among all others, in percent"
    return f"top-1 on the test split in percent, mean ± sd over {c.probe.draws} label draws"


def text(rows: Table) -> str:
    """The table for a terminal."""
    widths = {k: max(len(k), *(len(r[k]) for r in rows)) for k in rows[0]}
    head = "  ".join(k.ljust(w) for k, w in widths.items())
    body = ["  ".join(r[k].ljust(w) for k, w in widths.items()) for r in rows]
    return "\n".join([head, "─" * len(head), *body])
