"""`python -m benchmarks.studies.ranking PROJECT…`: does a score without labels rank encoders as labels do?

A project is a folder with params.yaml and labelled images in data/prepared. Every checkpoint.pt below it is an encoder,
and so is a random one of each architecture of params.yaml. It prints Spearman's rank correlation of scores without
labels with accuracy on test, in each project and pooled by the ranks within each.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from scipy.stats import rankdata, spearmanr

from benchmarks.report import markdown
from data.shards import Prepared
from models.encoders.encoder import Encoder
from models.encoders.weights import restore
from models.evaluation import probe
from models.methods import METHODS
from pipelines.evaluation import probe_protocol, scores
from pipelines.evaluation.features import encoder_features, images, unlabelled
from pipelines.project import config
from pipelines.project.config import Config, ProbeParams
from serving.host.command import Parser

SCORES = ("retrieval", "between_images")
ACCURACIES = ("linear_5", "linear_all", "knn_all")
CPU = torch.device("cpu")
Figures = dict[str, float]


def main() -> None:
    parser = Parser(prog="python -m benchmarks.studies.ranking", description=__doc__)
    parser.add_argument("projects", nargs="+", type=Path)
    found: dict[str, dict[str, Figures]] = {}
    for project in parser.parse_args().projects:
        c, prepared = config.load(project / "params.yaml"), Prepared(project / "data" / "prepared")
        found[project.name] = {who: figures(e, prepared, c.probe) for who, e in every(project, c, prepared)}
    shown = (*SCORES, *ACCURACIES)
    rows = [
        {"project": project, "encoder": who} | {k: f[k] for k in shown}
        for project, of in found.items()
        for who, f in of.items()
    ]
    print(f"{markdown(rows)}\n\n{markdown(table(found))}")


def every(project: Path, c: Config, prepared: Prepared) -> Iterator[tuple[str, Encoder]]:
    """(name, encoder): of every checkpoint, and a random one per architecture, its batch norm fed with train images."""
    for path in sorted(project.rglob("checkpoint.pt")):
        checkpoint = torch.load(path, weights_only=True)
        yield str(path.parent.relative_to(project)), restore(checkpoint["spec"], checkpoint["weights"])
    first = {c.method(name).encoder: name for name in reversed(METHODS)}
    for name in first.values():
        random = c.build(name, prepared.manifest).encoder
        probe.calibrate(random, images(prepared, "train"))
        yield f"random-{name}", random


def figures(encoder: Encoder, prepared: Prepared, p: ProbeParams) -> Figures:
    """The scores of an encoder on test, with labels and without."""
    extract = encoder_features(encoder, CPU)
    features = {s: extract(images(prepared, s)) for s in probe_protocol.SPLITS}
    y = probe_protocol.labels(prepared)
    read = probe_protocol.readings(features, y, [5], p, seed=0)
    return scores.figures(probe_protocol.score(r, y, "", 0) for r in read) | unlabelled(extract, prepared, seed=0)


def table(found: dict[str, dict[str, Figures]]) -> list[dict[str, object]]:
    """One row per score: its rank correlation with each accuracy, in each project and pooled."""
    rows = []
    for score in SCORES:
        row: dict[str, object] = {"score": score}
        for accuracy in ACCURACIES:
            pooled: list[tuple[float, float]] = []
            for project, of in found.items():
                x, y = ([f[k] for f in of.values()] for k in (score, accuracy))
                row[f"{accuracy}, {project} (n = {len(x)})"] = correlation(x, y)
                pooled += zip(rankdata(x) / len(x), rankdata(y) / len(y), strict=True)
            if len(found) > 1:
                row[f"{accuracy}, all (n = {len(pooled)})"] = correlation(*zip(*pooled, strict=True))
        rows.append(row)
    return rows


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    return float(spearmanr(x, y).statistic)


if __name__ == "__main__":
    main()
