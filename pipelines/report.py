"""Stage report: all results → artifacts/report.html, artifacts/plots/*.json, and the pictures in MLflow."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.methods import BASELINES
from pipelines.evaluation import contest
from pipelines.evaluation.approach import title
from pipelines.evaluation.words import listed
from pipelines.project import config, stage
from pipelines.project.stage import PAGE
from pipelines.registry import mlflow_store, provenance, receipts, runs
from pipelines.release import endpoint
from pipelines.reporting import page, pictures, results, tables
from pipelines.reporting.gallery import QUERIES, Gallery
from pipelines.reporting.results import Results

PLOTS = Path("artifacts/plots")
PAIRS = 15
NO_CURVE = {"step", "epoch"}
Plot = list[dict[str, Any]]


def main() -> None:
    r = results.read()
    gallery = Gallery(r)
    PAGE.write_text(page.render(context(r, gallery)), encoding="utf-8")
    write_plots(r, gallery.confusion)
    keep(r, gallery)
    print(f"{PAGE}: {PAGE.stat().st_size / 1e6:.1f} MB")


def context(r: Results, g: Gallery) -> dict[str, Any]:
    """All that the page says and shows."""
    names, size = r.prepared.manifest.classes, r.prepared.manifest.preprocess.size
    return {
        "dataset": r.config.dataset,
        "champion": r.champion,
        "labelled": r.labelled,
        "verdict": r.verdict(),
        "headline": g.headline,
        "leaders": contest.leaders(r.scores) if r.labelled else [],
        "all_labels": f"{r.per_class('all'):.0f}" if r.labelled else "",
        "diagnoses": r.diagnoses,
        "curves": g.curves,
        "head": tables.head(r),
        "accuracies": tables.accuracies(r),
        "marks": tables.marks(r),
        "costs": tables.costs(r),
        "cost_marks": tables.cost_marks(r),
        "training": g.training,
        "first_signals": len(r.config.methods) + 2,  # the losses, and the two most telling signals
        "neighbours": g.neighbours,
        "queries": ", ".join(names[c] for c in r.prepared.labels(g.test[g.chosen[:QUERIES]]) if c >= 0) or "no labels",
        "maps": g.maps,
        "views": g.views,
        "reconstructions": g.reconstructions,
        "attention": g.attention,
        "without_attention": [m for m in r.config.methods if m not in g.attention],
        "transformer": f"{{arch: vit_nano, patch_size: {patch(size)}}}",
        "share": round(100 * pictures.SHARE),
        "confusion": g.confusion,
        "confused": confused(g.confusion, names) if g.confusion is not None else [],
        "classes": names,
        "facts": facts(r),
        "curl": endpoint.curl(r.config.dataset),
    }


def patch(size: int) -> int:
    """The side of a transformer's patch for images of this side, px: at least four patches in a row."""
    return next(side for side in (16, 8, 4, 2, 1) if size % side == 0 and (size >= 4 * side or side == 1))


def confused(counts: NDArray[np.int64], names: Sequence[str]) -> tables.Table:
    """The pairs of classes that are confused most often."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    places = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(place), len(counts)) for place in places if wrong.flat[place]]
    return [{"true class": names[i], "predicted": names[j], "images": f"{wrong[i, j]:,}"} for i, j in pairs]


def facts(r: Results) -> dict[str, str]:
    """What the numbers were measured on."""
    m, c = r.prepared.manifest, r.config
    splits = ", ".join(f"{n:,} {split}" for split, n in m.splits.items())
    seeds = sorted({s.seed for s in r.scores} or {c.seed})
    return {
        "Images": f"{m.images:,} of {m.preprocess.size} × {m.preprocess.size} px: {splits}",
        "Classes": f"{len(m.classes)}: {', '.join(m.classes)}" if m.classes else "None: the images have no labels",
        "Left out": f"{m.quarantined:,} images that could not be read, {m.duplicates:,} copies",
        "Labels removed": f"{m.conflicts:,}, because copies of the image had different labels",
        "Methods": listed([title(name) for name in c.methods]),
        "Seeds": ", ".join(map(str, seeds)),
        "Label samples": f"{len({s.sample for s in r.scores})}",
        "Versions": ", ".join(f"{v['name']} {v['version']}" for v in r.promoted["models"]),
        "Commit": provenance.git_commit(),
        "Data": m.digest,
        "params.yaml": f"SHA-256 {hashlib.sha256(config.PARAMS.read_bytes()).hexdigest()}",
    }


def write_plots(r: Results, counts: NDArray[np.int64] | None) -> None:
    """The numbers of the page's charts, for `dvc plots`."""
    points: Plot = [
        {"encoder": a.who, "read": a.classifier, "labels": labels, "labels_per_class": r.per_class(labels)}
        | {"accuracy": p.mean, "low": p.mean - p.sd, "high": p.mean + p.sd}
        for a, cell in r.cells().items()
        for labels, p in cell.items()
    ]
    curves: Plot = [
        {"method": m, "step": row["step"], "signal": key, "value": row[key]}
        for m, rows in r.histories.items()
        for row in rows
        for key in row.keys() - NO_CURVE
    ]
    names = r.prepared.manifest.classes
    cells = [] if counts is None else [(i, j) for (i, j), n in np.ndenumerate(counts) for _ in range(n)]
    confused: Plot = [{"actual": names[i], "predicted": names[j]} for i, j in cells]
    PLOTS.mkdir(parents=True, exist_ok=True)
    for name, rows in {"label_efficiency": points, "training": curves, "confusion": confused}.items():
        (PLOTS / f"{name}.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


@mlflow_store.refusals()
def keep(r: Results, gallery: Gallery) -> None:
    """Put each method's pictures into its MLflow run, the page into the champion's, and make a run per baseline."""
    client = mlflow_store.connect()
    receipts.check(client, r.config.methods)
    for m in r.config.methods:
        files = {f"pictures/{name}.png": data for name, data in gallery.pictures(m).items()}
        if m == r.champion:
            files[PAGE.name] = PAGE.read_bytes()
        runs.log_files(client, results.load(stage.artifact(m, "version.json"))["run_id"], files)
    where = mlflow_store.experiment(client, r.config.dataset)
    client.set_experiment_tag(where, "mlflow.note.content", note(r))
    for baseline in BASELINES:
        for who, figures in results.load(stage.baseline(baseline, "metrics.json")).items():
            runs.ensure_baseline(client, r.config.dataset, who, figures)


def note(r: Results) -> str:
    """What MLflow shows above its list of runs, in Markdown: the verdict and the table."""
    rows = tables.accuracies(r)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    cells = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([*r.verdict(), f"{tables.head(r)}.", cells])


if __name__ == "__main__":
    stage.enter("report", main, __doc__)
