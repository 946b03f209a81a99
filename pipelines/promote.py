"""Stage promote: the best encoder gets the alias `champion`, each method's newest its own; artifacts/promoted.json.

The best encoder is the one with the best validation accuracy for the use that `promote.for` names. Nothing is fitted on
the validation split. Without labels, finding second views (`UNLABELLED`) decides.
"""

import hashlib
import json
import sys
from typing import Any

from data.shards import Prepared
from pipelines.evaluation import champion, probe_protocol, scores
from pipelines.evaluation.approach import title
from pipelines.evaluation.champion import READ, UNLABELLED, Candidate, Choice
from pipelines.evaluation.scores import Score
from pipelines.machine import flops
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts

FILES = ("metrics", "version", "parity")
SECOND_VIEWS = "Validation images that find their own second view among all others"
NO_LABELS = (
    "There are no labels, so the encoder that finds most second views was chosen. "
    "docs/explanation/evaluation.md says how well this ranks encoders."
)


@mlflow_store.refusals()
def main() -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    client = mlflow_store.connect()
    receipts.check(client, c.methods)
    read: dict[str, dict[str, Any]] = {
        m: {f: json.loads(stage.artifact(m, f"{f}.json").read_text(encoding="utf-8")) for f in FILES} for m in c.methods
    }
    figures = {m: read[m]["metrics"][m] for m in c.methods}
    labelled = all("val_linear_all" in figures[m] for m in c.methods)
    judged = prepared.rows("val")
    if labelled:
        what = champion.what_is_read(c.promote.for_, str(c.promote.labels))
        images = int((prepared.labels(judged) >= 0).sum())
        candidates = {m: Candidate.of(readings(m, c), forward_flops(m, c, prepared)) for m in c.methods}
    else:
        what, images = SECOND_VIEWS, min(len(judged), probe_protocol.COMPARED)
        found = {m: figures[m][f"val_{UNLABELLED}"] for m in c.methods}
        candidates = {m: Candidate(found[m], forward_flops(m, c, prepared)) for m in c.methods}
    chosen = champion.choose(candidates, what, images)
    for m in c.methods:
        version, parity = read[m]["version"], read[m]["parity"]
        for model, number in (
            (version["model"], version["version"]),
            (parity["onnx_model"], parity["onnx_version"]),
        ):
            client.set_model_version_tag(model, number, "val_score", candidates[m].score)
            if m == chosen.champion:
                client.set_model_version_tag(model, number, "promoted_because", chosen.reason)
    if not mlflow_store.is_temporary():  # the flow moves the aliases when the experiment is applied
        receipts.point(client, chosen.champion)
    versions = {m: read[m]["version"]["version"] for m in c.methods}
    write(c, chosen, versions)
    print(f"Champion of {c.dataset}: {title(chosen.champion)}, version {versions[chosen.champion]}. {chosen.reason}")
    if not labelled:
        print(NO_LABELS, file=sys.stderr)


def readings(name: str, c: Config) -> list[Score]:
    """The single scores of a method that decide. Raises StageError where there are none."""
    how, labels = READ[c.promote.for_], str(c.promote.labels)
    table = stage.artifact(name, "finetune.csv" if how == "finetune" else "scores.csv")
    found = [s for s in scores.read(table) if (s.who, s.how, s.labels) == (name, how, labels)]
    if not found:
        raise StageError(
            f"The key promote.labels is {labels}, but {title(name)} was not evaluated with so many labels for "
            f"{c.promote.for_}: some class has fewer training images with a label. Set promote.labels to a smaller "
            f"number or to all."
        )
    return found


def forward_flops(name: str, c: Config, prepared: Prepared) -> float:
    """Of one image through the encoder."""
    m = prepared.manifest
    return flops.encoder_flops(c.build(name, m).encoder, m.preprocess.size)


def write(c: Config, chosen: Choice, versions: dict[str, str]) -> None:
    """artifacts/promoted.json: what is served, under which names, from which archives."""
    served = [(f"{c.dataset}-encoder", chosen.champion), *((f"{c.dataset}-{m}", m) for m in c.methods)]
    promoted = {
        "dataset": c.dataset,
        "champion": chosen.champion,
        "reason": chosen.reason,
        "models": [
            {
                "name": name,
                "method": m,
                "version": versions[m],
                "archive": str(stage.artifact(m, "encoder.mar")),
                "sha256": hashlib.sha256(stage.artifact(m, "encoder.mar").read_bytes()).hexdigest(),
            }
            for name, m in served
        ],
    }
    stage.PROMOTED.write_text(json.dumps(promoted, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    stage.enter("promote", main, __doc__)
