"""Which project a command works on, what lies in it, and how the user's paths look from its folder."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

OWN = Path(__file__).resolve().parents[2]  # the project that this command was installed from


def root() -> Path:
    """The project around the current folder, or else the one that this command was installed from."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the current folder was removed
        return OWN
    return next((folder for folder in (here, *here.parents) if is_project(folder)), OWN)


def is_project(folder: Path) -> bool:
    """Whether a folder is a copy of this project."""
    return (folder / "dvc.yaml").is_file() and (folder / "pipelines" / "command_line").is_dir()


def enter() -> None:
    """Work in the project's folder from now on: the stages, DVC and the recipes are found from there."""
    os.chdir(root())


def hand_over(arguments: Sequence[str]) -> None:
    """Inside another copy of the project, become that copy's command: a command and its files must fit together."""
    other = root()
    if other.samefile(OWN) or os.environ.get("PYTHONPATH") == str(other):  # the second: it was handed over already
        return
    os.environ["PYTHONPATH"] = str(other)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pipelines.command_line", *arguments])


def from_root(path: Path) -> Path:
    """A path of the user's as the project's folder sees it: relative where it lies inside, else absolute."""
    absolute, folder = Path(os.path.abspath(path.expanduser())), root()
    return absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute


def recipe_names() -> list[str]:
    """The files of recipes/, without their ending."""
    return sorted(path.stem for path in (root() / "recipes").glob("*.yaml"))


def study_names() -> list[str]:
    """The files of studies/, without their ending."""
    return sorted(path.stem for path in (root() / "studies").glob("*.yaml"))


def method_names() -> list[str]:
    """The methods, by their files: importing them would take seconds."""
    return sorted(path.stem for path in (root() / "models" / "methods").glob("[!_]*.py"))
