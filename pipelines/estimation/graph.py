"""The stages of dvc.yaml and what each waits for, read without DVC, which takes seconds to start."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipelines.project.config import Config

Graph = dict[str, tuple[str, ...]]  # stage → the stages that it waits for, in the order of the file


def read(c: Config, path: Path = Path("dvc.yaml")) -> Graph:
    """The graph for this configuration."""
    stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    known = {"${methods}": c.methods, "${download}": c.download}
    specs: dict[str, Any] = {}
    for name, stage in stages.items():
        if "foreach" not in stage:
            specs[name] = stage
            continue
        items = stage["foreach"]
        for item in known[items] if isinstance(items, str) else items:
            specs[f"{name}@{item}"] = filled(stage["do"], item)
    specs = {name: filled(spec, c.dataset, "dataset") for name, spec in specs.items()}
    made = {name: [*paths(spec.get("outs", [])), *paths(spec.get("metrics", []))] for name, spec in specs.items()}
    return {
        name: tuple(
            other
            for other, outs in made.items()
            if other != name and any(touch(out, dep) for out in outs for dep in needed(spec))
        )
        for name, spec in specs.items()
    }


def below(graph: Graph, wanted: Iterable[str]) -> list[str]:
    """These stages and all that stand on them, in the order of the graph."""
    found = set(wanted)
    while more := {name for name, upstream in graph.items() if found & set(upstream)} - found:
        found |= more
    return [name for name in graph if name in found]


def filled(spec: Any, value: str, name: str = "item") -> Any:
    """A part of the file with `${name}` replaced in every text."""
    if isinstance(spec, dict):
        return {filled(key, value, name): filled(each, value, name) for key, each in spec.items()}
    if isinstance(spec, list):
        return [filled(each, value, name) for each in spec]
    return spec.replace(f"${{{name}}}", value) if isinstance(spec, str) else spec


def needed(spec: dict[str, Any]) -> Iterator[PurePosixPath]:
    """The paths that a stage reads."""
    yield from paths(spec.get("deps", []))
    yield from paths([params for params in spec.get("params", []) if isinstance(params, dict)])


def paths(listed: list[Any]) -> Iterator[PurePosixPath]:
    """Of a list of DVC's: paths, or a path with its options."""
    for each in listed:
        for path in each if isinstance(each, dict) else [each]:
            yield PurePosixPath(path)


def touch(a: PurePosixPath, b: PurePosixPath) -> bool:
    """Whether one is the other or lies in it."""
    return a.is_relative_to(b) or b.is_relative_to(a)
