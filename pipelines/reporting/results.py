"""All that the stages found, read once. The tables, the verdict and the page are made of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from data.shards import Prepared
from models.methods import BASELINES
from pipelines.evaluation import advice, approach, contest, continued, probe_protocol, scores, second_views
from pipelines.evaluation.approach import Approach, Shares, title
from pipelines.evaluation.champion import FEW, UNLABELLED
from pipelines.evaluation.scores import ALL, INITIAL, Score
from pipelines.evaluation.second_views import SecondViews
from pipelines.evaluation.verdict import Verdict, health
from pipelines.machine import flops
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.history import Row, read_history

READ_FROM = {"metrics.json": "scores.csv", "finetune.json": "finetune.csv"}  # figures, and their single readings
ORDER = ("linear", "knn", "finetune")
SHOWN = 3  # label counts of a short table
Figures = dict[str, float]
Cells = dict[Approach, dict[str, "Point"]]  # approach → labels per class, or all → its accuracy


@dataclass(frozen=True)
class Point:
    """Top-1 on test in percent: mean and sd over n runs (pretraining seeds × label samples)."""

    mean: float
    sd: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.sd:.1f}" if self.n > 1 else f"{self.mean:.1f}"


@dataclass(frozen=True)
class Results:
    """figures: who → name → number; diagnoses and histories: of each method that has one."""

    config: Config
    prepared: Prepared
    figures: dict[str, Figures]
    scores: list[Score]
    diagnoses: dict[str, dict[str, str]]
    histories: dict[str, Sequence[Row]]
    promoted: dict[str, Any]

    @property
    def champion(self) -> str:
        return str(self.promoted["champion"])

    @property
    def labelled(self) -> bool:
        return bool(self.scores)

    @property
    def shots(self) -> list[str]:
        """Label counts (per class) at which something was measured, ascending, `all` last."""
        return list(approach.cells(self.scores))

    def per_class(self, labels: str) -> float:
        """Labels per class as a number; of `all`, how many the train split has on average."""
        m = self.prepared.manifest
        return m.labelled["train"] / len(m.classes) if labels == ALL else float(labels)

    def backbone(self, method: str) -> str:
        """The first method with the same encoder: by whose name what is trained from scratch goes."""
        encoders = {m: replace(self.config.method(m).encoder, init=None) for m in self.config.methods}
        return next(m for m in self.config.methods if encoders[m] == encoders[method])

    def cells(self) -> Cells:
        """Approaches in the order of the table: the methods, what is trained from scratch, random encoders, pixels."""
        found: Cells = {}
        for labels, cell in approach.cells(self.scores).items():
            for way, runs in cell.items():
                values = [s.accuracy for s in runs]
                sd = stdev(values) if len(values) > 1 else 0.0
                found.setdefault(way, {})[labels] = Point(mean(values), sd, len(values))
        return dict(sorted(found.items(), key=lambda item: place(item[0], self.config.methods)))

    def key_counts(self) -> list[str]:
        """The few label counts of short tables and of the first chart: those at which something is decided."""
        counts = list(approach.contested(self.scores))
        return counts if len(counts) <= SHOWN else [counts[0], counts[len(counts) // 2], counts[-1]]

    def shortlist(self) -> list[Approach]:
        """One approach per method and per baseline: the best on val, of those measured at the most key counts."""
        every, counts = approach.cells(self.scores), self.key_counts()
        kinds: dict[str, list[Approach]] = {}
        for way in self.cells():
            kinds.setdefault(way.kind, []).append(way)
        found = []
        for ways in kinds.values():
            known = {way: [n for n in counts if way in every[n]] for way in ways}
            widest = [way for way in ways if len(known[way]) == max(map(len, known.values()))]
            if first := known[widest[0]][:1]:
                found.append(approach.best({way: every[first[0]][way] for way in widest if way in every[first[0]]}))
        return found

    def verdict(self) -> Verdict:
        """What all of it says, in sentences."""
        served = f"The champion is {title(self.champion)}. {self.promoted['reason']}"
        both = " and the best of each side" if self.labelled else ""
        chosen = f"Only {self.judges('val')} validation images chose {title(self.champion)}{both}."
        few = [f"{chosen} Others may be better on the test images."]
        few = few if self.judges("val") < FEW else []
        judged = health(self.diagnoses)
        if not self.labelled:
            seen = self.second_views()
            answer, todo = second_views.judged(self.champion, seen, self.diagnoses.get(self.champion, {}))
            figures = second_views.figures(self.champion, seen)
            more = second_views.continued(self.champion, seen)
            return Verdict(answer, figures, judged, (*second_views.CAVEATS, *few), served, todo, more)
        shares, found = self.shares(), contest.contests(self.scores)
        return Verdict(
            answer=contest.answer(found),
            figures=contest.figures(found, shares),
            health=judged,
            caveats=(*contest.caveats(self.scores, found, shares), *few),
            champion=served,
            advice=advice.advice(self.scores, self.champion, self.config.promote.for_),
            continued=continued.continued(self.scores, self.config.methods),
        )

    def judges(self, split: str) -> int:
        """Images of a split by which encoders are judged."""
        rows = self.prepared.rows(split)
        return (
            int((self.prepared.labels(rows) >= 0).sum()) if self.labelled else min(len(rows), probe_protocol.COMPARED)
        )

    def second_views(self) -> SecondViews:
        ours, random, pixels = (
            self.figures[who][UNLABELLED] for who in (self.champion, f"random-{self.champion}", "pixels")
        )
        initial = self.figures.get(f"{INITIAL}-{self.champion}", {}).get(UNLABELLED)
        return SecondViews(ours, random, pixels, self.judges("test"), initial)

    def shares(self) -> Shares:
        """How many images each baseline saw, as a share of the pretraining of its backbone."""
        found: dict[tuple[str, str], float] = {}
        for who, figures in self.figures.items():
            baseline, _, method = who.partition("-")
            if baseline in BASELINES:
                pretrained = self.pretrained_images(method)
                found |= {
                    (who, n): figures[key] / pretrained
                    for n in self.shots
                    if (key := "images_all" if n == ALL else "images") in figures
                }
        return found

    def pretrained_images(self, method: str) -> float:
        """That went through the backbone in a pretraining, one seed's."""
        m = self.prepared.manifest
        steps, batch = self.histories[method][-1]["step"], self.config.method(method).batch_size
        return steps * batch * flops.views(self.config.build(method, m), 2, m.preprocess.size) / 2


def place(way: Approach, methods: Sequence[str]) -> tuple[int, ...]:
    """What an approach is sorted by."""
    order = [*methods, *(f"{m}-pseudolabel" for m in methods), *(f"{INITIAL}-{m}" for m in methods)]
    order += [*(f"{c}-{m}" for c in BASELINES for m in methods), *(f"random-{m}" for m in methods), "pixels"]
    return (order.index(way.who), ORDER.index(way.how))


def read() -> Results:
    """From the files of the stages; what is optional, and what there is only with labels, may be absent."""
    figures: dict[str, Figures] = {}
    measured: list[Score] = []
    c, prepared = config.load(), Prepared(stage.PREPARED)
    files = [(stage.artifact(m, js), stage.artifact(m, csv)) for m in c.methods for js, csv in READ_FROM.items()]
    files += [(stage.baseline(name, "metrics.json"), stage.baseline(name, "scores.csv")) for name in BASELINES]
    for summary, table in files:
        for who, found in load(summary).items():
            figures[who] = figures.get(who, {}) | found
        measured += scores.read(table) if table.exists() else []
    return Results(
        config=c.fitted(len(prepared.rows("train"))),
        prepared=prepared,
        figures=figures,
        scores=sorted(set(measured), key=measured.index),  # raw pixels stand in the file of every method
        diagnoses={m: d for m in c.methods if (d := load(stage.artifact(m, "diagnosis.json")))},
        histories={m: read_history(stage.artifact(m, "history.jsonl")) for m in c.methods},
        promoted=json.loads(stage.PROMOTED.read_text(encoding="utf-8")),
    )


def load(path: Path) -> dict[str, Any]:
    """A JSON file, empty where there is none."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
