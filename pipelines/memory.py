"""`python -m pipelines.memory [RECIPE…]`: the memory of every training of a recipe, beside its machine's.

Ends with 1 where a training needs more than the recipe's line `# Machine:` says.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from models import start
from models.method import Method, MethodParams
from models.methods import BASELINES, BaselineParams
from pipelines.evaluation import trials
from pipelines.machine import footprint
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.recipes import read
from pipelines.project.stage import StageError
from serving.host.command import Parser

CLASSES = 1000  # ImageNet's, the most that a recipe's images have
MACHINE = re.compile(r"^# Machine: (\d+) × (\d+) GB", re.MULTILINE)
COLOURS = (0.5,) * 3, (0.25,) * 3  # mean and deviation: of no weight here


@dataclass(frozen=True)
class Work:
    """A training: its stage, the section of its numbers, whose it is, and the processes that share its batch."""

    stage: str
    section: str
    who: str  # of the scores
    build: Callable[[], Method]
    params: MethodParams | BaselineParams
    processes: int


def trainings(c: Config, classes: int, labelled: bool) -> Iterator[Work]:
    """All that a configuration trains: every method, and where there are labels its fine-tuning and the baselines."""
    for name in c.methods:
        build = partial(start.method, name, c.method(name), c.prepare.size, *COLOURS, 0)
        yield Work(f"pretrain@{name}", name, name, build, c.method(name), c.pretrain.processes)
    if not labelled:
        return
    for name in trials.backbones(c):
        tuned = [("finetune", who, baseline, params) for who, baseline, params in trials.ways(name, c)]
        some = tuned if c.finetune.shots else tuned[:1]  # with all labels there is nothing to label
        scratch = [(baseline, f"{baseline}-{name}", baseline, c.of_baseline(baseline)) for baseline in BASELINES]
        for section, who, baseline, params in [*some, *scratch]:
            own = f"finetune@{name}" if section == "finetune" else f"baseline@{baseline}"
            made = partial(over, baseline, name, c, params, classes)
            yield Work(own, section, who, made, params, c.pretrain.processes)


def over(baseline: str, name: str, c: Config, params: BaselineParams, classes: int) -> Method:
    """A baseline over the encoder of this method."""
    encoder = c.method(name).encoder.build(c.prepare.size, *COLOURS)
    return start.baseline(baseline, encoder, params, c.prepare.size, classes, 0)


def table(recipe: str) -> tuple[list[str], bool]:
    """A line for each training of a recipe, and whether all fit. Raises StageError where no machine is stated."""
    stated = MACHINE.search(read(recipe))
    if not stated:
        raise StageError(f"recipes/{recipe}.yaml states no machine. Add a line such as `# Machine: 8 × 80 GB`.")
    c, has = config.load(Path("recipes", f"{recipe}.yaml")), int(stated[2]) * footprint.GB
    lines, fits = [f"{recipe}: {stated[1]} × {stated[2]} GB"], True
    for work in trainings(c, CLASSES, c.labelled_trainings):
        images = footprint.at_once(work.params, work.processes)
        with torch.device("meta"):
            method = work.build()
        need = footprint.needed(method, work.params, c.prepare.size, images, c.pretrain.precision in ("auto", "bf16"))
        fits = fits and need <= has and work.processes <= int(stated[1])
        way = "fine-tuning of " if work.section == "finetune" else ""
        lines.append(f"  {need / footprint.GB:6.1f} GB  {way}{work.who}, {work.processes} × {images} images at once")
        if need > has:
            lines.append(
                f"             That is too much. {footprint.remedy(work.section, work.params, work.processes)}"
            )
    return lines, fits


def main(recipes: list[str]) -> None:
    """recipes: names; none: all of them."""
    good = True
    for recipe in recipes or sorted(path.stem for path in Path("recipes").glob("*.yaml")):
        lines, fits = table(recipe)
        good = good and fits
        print("\n".join(lines), flush=True)
    if not good:
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(prog="python -m pipelines.memory", description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="such as imagenet-vit-base; none: all")
    wanted: list[str] = parser.parse_args().recipes
    stage.run("memory", lambda: main(wanted))
