"""`dvc status` may be believed: what can change a stage's result makes it stale, and nothing else does."""

import copy
import dataclasses
import typing
from collections.abc import Collection, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.methods import BASELINES, METHODS
from pipelines import settings
from pipelines.project import config
from tests.pipelines.small_project import ROOT, Project
from tests.test_architecture import FILES, STAGES, imported, module

# Modules that a stage imports and that cannot change its result.
NEVER = {  # of no stage
    "data.disk", "data.pool", "data.progress",  # words of a full disk, workers, a bar
    "pipelines.project",  # what it decides is in artifacts/settings.yaml
    "pipelines.saving", "serving.host",  # how files are written, how a command starts and ends
    "pipelines.machine.cores", "pipelines.machine.footprint", "pipelines.machine.gpus",  # where a training runs
    "pipelines.machine.ranks",
    "models.methods.__init__",  # which class a name stands for
}  # fmt: skip
READ = {"data.decoding", "data.splits"}  # they made data/prepared, which is read
SHARDS = READ | {"data.shards"}  # of which only the manifest is read, or what is compared with itself
OTHERS = {f"models.methods.{name}" for name in METHODS} | {"models.baselines"}  # than the stage's own method
NETWORKS = OTHERS | {"models.encoders", "models.views", "models.evaluation"}
TRAINING = {"models.method", "models.optim", "models.parallel", "models.precision", "models.signals", "models.start"}
CONFIG = NETWORKS | TRAINING | {"models.diagnosis"}  # config.py names the params of every method, nothing is built
HEALTH = {"models.diagnose", "models.diagnosis"}  # a look at the rows, which may stop a training and changes none
ALSO = {
    "settings": SHARDS,
    "prepare": CONFIG,
    "pretrain": READ | OTHERS | HEALTH | {"pipelines.registry"},  # the last: curves in MLflow
    "probe": READ | OTHERS | TRAINING | {"pipelines.registry"},  # the last: where weights may be downloaded from
    "finetune": READ
    | OTHERS
    | HEALTH
    | {"data.batches", "models.evaluation.logistic", "models.signals", "pipelines.registry"},
    "baseline": READ | HEALTH | {"data.batches", "models.evaluation.logistic", "models.signals"},
    "register": SHARDS | CONFIG,
    "export": SHARDS | CONFIG | {"pipelines.evaluation.scores"},
    "archive": CONFIG,
    "promote": SHARDS,
    "report": SHARDS | {"data.batches", "serving"},  # the last: the address that the page names
}
BY_NAME = {module(path): path for path in FILES}
EMPTY = {name for name, path in BY_NAME.items() if path.name == "__init__.py" and not imported(path)}  # a docstring


@cache
def closure(name: str) -> frozenset[str]:
    """All modules that are imported when this one is, at its top or later."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each in BY_NAME and each not in found:
            found.add(each)
            waiting += [*imported(BY_NAME[each]), each.rpartition(".")[0]]
    return frozenset(found)


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_is_a_dependency_or_cannot_change_its_result(stage: str) -> None:
    deps = STAGES[stage].get("do", STAGES[stage])["deps"]
    assert not uncovered(
        f"pipelines.{stage}", [dep.replace("${item}", next(iter(METHODS))) for dep in deps], ALSO[stage]
    )


def uncovered(name: str, deps: Iterable[str], also: Collection[str]) -> list[str]:
    """What a module imports that is neither below a dependency nor known to change no result."""
    silent = {*NEVER, *also}
    return [
        each
        for each in sorted(closure(name) - EMPTY)
        if not any(BY_NAME[each].is_relative_to(dep) for dep in deps)
        and not any(f"{dotted(BY_NAME[each])}.".startswith(f"{known}.") for known in silent)
    ]


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


@pytest.mark.parametrize("stage", STAGES)
def test_every_dependency_is_there_and_of_use(stage: str) -> None:
    """A file is imported or packed; a folder has one that is."""
    for dep in STAGES[stage].get("do", STAGES[stage])["deps"]:
        path = ROOT / dep.replace("${item}", next(iter(METHODS)))
        if dep.startswith(("artifacts/", "data/raw", "data/prepared")):
            continue
        assert path.exists(), dep
        used = {ROOT / BY_NAME[name] for name in closure(f"pipelines.{stage}")}
        assert dep == "params.yaml" or stage == "archive" or any(file.is_relative_to(path) for file in used), dep


def defaults(section: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path of every key of a section that has a default, and the section with another value there."""
    hints = typing.get_type_hints(type(section))
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            for inner, changed in defaults(value, (*path, field.name)):
                yield inner, with_other(section, field.name, changed)
        if field.default is not MISSING and typing.get_args(hints[field.name]) != (value,):
            yield (*path, field.name), with_other(section, field.name, other(value, hints[field.name]))


def with_other(section: Any, key: str, value: Any) -> Any:
    """A copy that nobody checks: whether the value is allowed is of no matter here."""
    changed = copy.copy(section)
    object.__setattr__(changed, key, value)
    return changed


def other(value: Any, kind: Any) -> Any:
    """Another value of a type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return tuple(x + 1 for x in value)
    if value is None:
        return 1
    words = [word for one in (kind, *typing.get_args(kind)) for word in typing.get_args(one)]
    return next((word for word in words if isinstance(word, str) and word != value), "another")


def stages_that_read(section: str, key: tuple[str, ...], c: config.Config) -> set[str]:
    """By this table, which is what docs/explanation/architecture.md promises."""
    of = {kind: {f"{kind}@{name}" for name in c.methods} for kind in ("probe", "finetune", "export")}
    baselines = {f"baseline@{name}" for name in BASELINES}
    if key[-1] in settings.NO_RESULT:
        return set()
    if section in c.trainings:
        some = getattr(c.trainings[section], "local_crops", 0) > 0
        sees = (
            (key[0] == "encoder" and key[-1] != "init") or key[0] == "local_crops" or (key[0] == "local_size" and some)
        )
        return {f"pretrain@{section}", f"probe@{section}", "report", *(baselines if sees else ())}
    if section == "pretrain":
        labelled = of["finetune"] | baselines if key[0] in ("precision", "compile") else set()
        return {f"pretrain@{name}" for name in c.methods} | labelled
    return {
        "prepare": {"prepare"},
        "probe": of["probe"] | of["export"],
        "finetune": of["finetune"],
        "baseline": baselines,
        "supervised": {"baseline@supervised"},
        "pseudolabel": {"baseline@pseudolabel"} | of["finetune"],
        "fixmatch": {"baseline@fixmatch"},
        "export": of["export"],
        "promote": {"promote"},
    }[section]


def changed_stages(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    found = set()
    for kind, section in before.items():
        if kind in ("prepare", "promote", "report"):
            found |= {kind} if section != after[kind] else set()
        else:
            found |= {f"{kind}@{name}" for name in section if section[name] != after[kind][name]}
    return found


SECTIONS = [f.name for f in fields(config.Sections) if is_dataclass(f.type) or f.name in (
    "prepare", "pretrain", "probe", "finetune", "baseline", *BASELINES, "export", "promote")]  # fmt: skip


@pytest.mark.parametrize("recipe", ["digits", "imagenet-vit-base"])
@pytest.mark.parametrize("section", [*METHODS, *SECTIONS])
def test_a_changed_default_makes_those_stages_stale_that_read_it(section: str, recipe: str) -> None:
    c = config.load(ROOT / "recipes" / f"{recipe}.yaml")
    before, seen = settings.of_stages(c), 0
    for key, changed in defaults(c.trainings.get(section) or getattr(c, section)):
        now = c.having(section, changed) if section in c.trainings else dataclasses.replace(c, **{section: changed})
        assert changed_stages(before, settings.of_stages(now)) == stages_that_read(section, key, c), key
        seen += 1
    assert seen or section in ("promote", "baseline", "finetune")


def test_dvc_sees_a_default_that_changes_in_the_code(project: Project) -> None:
    project.set({"download": []})
    assert project.dvc("repro", "--single-item", "settings").returncode == 0
    written = yaml.safe_load((project.root / "artifacts/settings.yaml").read_text())
    assert written["probe"]["mae"]["neighbours"] == 20
    code = project.root / "pipelines/project/config.py"
    code.write_text(code.read_text().replace("neighbours: int = 20", "neighbours: int = 10"))
    assert "settings:" in project.dvc("status", "settings").stdout
    assert project.dvc("repro", "--single-item", "settings").returncode == 0
    again = yaml.safe_load((project.root / "artifacts/settings.yaml").read_text())
    assert changed_stages(written, again) == {f"{kind}@{name}" for kind in ("probe", "export") for name in METHODS}
