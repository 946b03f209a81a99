"""All training runs of a stage with labels: every trial with every label sample; the scores and the cost."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from data.progress import Progress
from models import parallel
from models.evaluation import probe
from models.methods import BaselineParams
from pipelines.evaluation import scores
from pipelines.evaluation.scores import ALL, Score
from pipelines.evaluation.supervised.training import Labelled, Numbers, Outcome, Trial
from pipelines.machine import footprint, ranks
from pipelines.project.config import Config
from pipelines.project.parse import refused
from pipelines.project.stage import StageError
from pipelines.project.supervision import LabelSamples

Run = tuple[Score, Outcome]
Planned = tuple[Trial, str, int, Numbers]  # with a label count, a sample, and its rows


def run(name: str, data: Labelled, trials: list[Trial], of: LabelSamples, seed: int) -> list[Run]:
    """Every trial with every label sample, the same for all. name: the stage's, for the progress."""
    planned = plan(data, trials, of, seed)
    runs = []
    shown = sys.stderr if ranks.first() else sys.stdout  # which of other ranks is nowhere
    with Progress(images(data, planned), name, "images", 0, shown) as progress:
        for t, count, sample, rows in planned:
            section = "finetune" if name.startswith("finetune@") else t.baseline
            with footprint.explained(section, t.params, parallel.world()):
                outcome = data.fit(t, rows, seed_of(t.seed, count, sample), progress.advance)
            runs.append((Score.of(t.who, "finetune", count, t.seed, sample, outcome.said), outcome))
    return runs


def check(section: str, params: BaselineParams, c: Config) -> None:
    """Raises StageError where the ranks' parts of a batch would not be equal."""
    parts = ranks.size(c.pretrain.processes) * params.accumulate
    if c.labelled_trainings and params.batch_size % parts:
        allowed = f"a multiple of {parts}, which is processes times accumulate"
        raise StageError(f"{refused(f'{section}.batch_size', params.batch_size, allowed)} Edit params.yaml.")


def plan(data: Labelled, trials: list[Trial], of: LabelSamples, seed: int) -> list[Planned]:
    """Every trial with every sample that it has a use for."""
    return [
        (
            replace(t, steps=of.steps_of_all(t.steps, len(rows), t.params.batch_size)) if count == ALL else t,
            count,
            sample,
            rows,
        )
        for t in trials
        for count, sample, rows in label_samples(data, of, seed)
        if t.uses(len(data.train) - len(rows))
    ]


def images(data: Labelled, planned: list[Planned]) -> int:
    """That go through a backbone in all of them."""
    return sum(t.steps * data.images_a_step(t.baseline, t.encoder, t.params) for t, *_ in planned)


def label_samples(data: Labelled, of: LabelSamples, seed: int) -> list[tuple[str, int, Numbers]]:
    """Label count, sample, and its rows: the samples of the probe, then all labels."""
    rows, y = data.rows["train"], data.y["train"]
    few = [
        (str(shots), sample, rows[chosen])
        for shots in probe.shots_of(y, of.shots)
        for sample, chosen in enumerate(probe.label_samples(y, shots, of.label_samples, seed))
    ]
    return [*few, (ALL, 0, rows)]


def seed_of(seed: int, labels: str, sample: int) -> int:
    """Of one training run: another for each label sample, the same for every approach."""
    return int(np.random.SeedSequence([seed, 0 if labels == ALL else int(labels), sample]).generate_state(1)[0])


def save(runs: Iterable[Run], table: Path, summary: Path) -> None:
    """Write every score, and who → figures and cost; say them too."""
    of: dict[str, list[Run]] = defaultdict(list)
    for score, outcome in runs:
        of[score.who].append((score, outcome))
    scores.write(table, (score for own in of.values() for score, _ in own))
    figures = {}
    for who, own in of.items():
        figures[who] = scores.figures(score for score, _ in own)
        shown = " · ".join(f"{k} {v:.1f}" for k, v in figures[who].items() if k.startswith("finetune"))
        for name, some in (
            ("", [o for s, o in own if s.labels != ALL]),
            ("_all", [o for s, o in own if s.labels == ALL]),
        ):
            if some:
                figures[who] |= {f"seconds{name}": mean(o.seconds for o in some), f"images{name}": some[0].images}
        print(f"{who}: {shown} · {own[0][1].seconds:.1f} s and {own[0][1].images:,} images per training run")
    summary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not figures:
        print("Skipped: it needs labelled images of at least two classes, and labelled_trainings: true.")
    elif few := [(int(n), of[key]) for of in figures.values() for key in of if (n := key.partition("_")[2]).isdigit()]:
        labels, accuracy = max(few, key=lambda found: (-found[0], found[1]))
        print(
            f"test accuracy {accuracy:.1f} % with {labels} label{'s' * (labels > 1)} per class"
        )  # the key figure of the stage
