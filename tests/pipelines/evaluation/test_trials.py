"""Which training runs with labels a configuration asks for."""

from dataclasses import replace
from pathlib import Path

from models import start
from pipelines.evaluation.supervised import trials
from pipelines.project import config

GREY = (0.5, 0.5, 0.5)


def test_fine_tuning_with_pseudo_labels_can_be_left_out() -> None:
    c = config.load(Path("recipes/digits.yaml"))
    encoder = start.method("mae", c.method("mae"), 16, GREY, GREY, seed=0).encoder
    without = replace(c, finetune=replace(c.finetune, pseudolabel=False))
    assert [t.who for t in trials.fine_tunings("mae", c, {0: encoder})] == ["mae", "mae-pseudolabel"]
    assert [t.who for t in trials.fine_tunings("mae", without, {0: encoder})] == ["mae"]
