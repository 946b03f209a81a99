"""Stage promote: the best encoder gets the alias `champion`, each method's newest its own; artifacts/promoted.json.

The best is the best on val, which nothing was fitted on: fine-tuned, or the better of fine-tuned and frozen. Without
labels `UNLABELLED` decides.
"""

import hashlib
import json
import sys
from typing import Any

from models.methods import METHODS
from pipelines import config, stage, tracking
from pipelines.stage import StageError

UNLABELLED = "retrieval"  # docs/evaluation.md says how well it ranks encoders that do have labels
Figures = dict[str, float]


def main() -> None:
    c = config.load()
    files = ("metrics", "finetune", "version", "parity")
    read: dict[str, dict[str, Any]] = {
        m: {f: json.loads(stage.artifact(m, f"{f}.json").read_text()) for f in files} for m in METHODS
    }
    figures = {m: read[m]["metrics"][m] | read[m]["finetune"].get(m, {}) for m in METHODS}
    labelled = all("val_linear_all" in figures[m] for m in METHODS)
    metric = c.promote.metric if labelled else UNLABELLED
    scores = {m: score(figures[m], metric) for m in METHODS}
    champion = max(METHODS, key=lambda m: scores[m][0])
    said = {m: f"{m} {value:.1f}{f' ({how})' if how else ''}" for m, (value, how) in scores.items()}
    reason = f"{metric} on val: {said[champion]} against {', '.join(said[m] for m in METHODS if m != champion)}"
    client = tracking.connect()
    for m in METHODS:
        version, parity = read[m]["version"], read[m]["parity"]
        for model, number in (
            (version["model"], version["version"]),
            (parity["onnx_model"], parity["onnx_version"]),
        ):
            client.set_registered_model_alias(model, m, number)
            client.set_model_version_tag(model, number, f"val_{metric}", scores[m][0])
            if m == champion:
                client.set_registered_model_alias(model, "champion", number)
                client.set_model_version_tag(model, number, "promoted_because", reason)
    served = [(f"{c.dataset}-encoder", champion), *((f"{c.dataset}-{m}", m) for m in METHODS)]
    promoted = {
        "dataset": c.dataset,
        "champion": champion,
        "reason": reason,
        "models": [
            {
                "name": name,
                "method": m,
                "version": read[m]["version"]["version"],
                "archive": str(stage.artifact(m, "encoder.mar")),
                "sha256": hashlib.sha256(stage.artifact(m, "encoder.mar").read_bytes()).hexdigest(),
            }
            for name, m in served
        ],
    }
    stage.PROMOTED.write_text(json.dumps(promoted, indent=2) + "\n")
    print(f"champion of {c.dataset}: {champion}, version {read[champion]['version']['version']} ({reason})")
    if not labelled:
        print(
            "no labels: how often an image finds a second view of itself among all others' decided; how well that "
            "ranks encoders that do have labels is in docs/evaluation.md",
            file=sys.stderr,
        )


def score(figures: Figures, metric: str) -> tuple[float, str]:
    """The figure on val, and which reading gave it where there is a choice. Raises StageError where there is none."""
    how, _, labels = metric.rpartition("_")
    names = (
        {f"val_{kind}_{labels}": kind for kind in ("linear", "finetune")} if how == "best" else {f"val_{metric}": ""}
    )
    if missing := [name for name in names if name not in figures]:
        raise StageError(
            f"promote.metric is {metric}, and {missing[0]} was not measured: not every class has so many labels"
        )
    return max((figures[name], kind) for name, kind in names.items())


if __name__ == "__main__":
    stage.run("promote", main)
