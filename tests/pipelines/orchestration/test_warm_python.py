"""A fork of the warm Python is what `python -m` would be."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.orchestration.warm.python import FOLDER, WarmPython

PROGRAM = """
import json, os, random, sys
print(json.dumps([sys.argv, os.getcwd(), os.environ["MARK"], __name__, random.random()]))
print("a warning", file=sys.stderr)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else " ".join(sys.argv[1:]) or None)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    here = Path.cwd()
    folder = tmp_path_factory.mktemp("a folder with a long name " * 3)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "waits.py").write_text("import signal\nprint('ready', flush=True)\nsignal.pause()\n")
    os.chdir(folder)
    with WarmPython(os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{here}", "MARK": "ours"}) as warm:
        yield warm
    os.chdir(here)


def test_output_errors_arguments_and_exit_status_are_those_of_a_new_interpreter(python: WarmPython) -> None:
    for arguments, status in (([], 0), (["7"], 7), (["It", "failed."], 1)):
        child = python.start("program", *arguments)
        forked = [(is_error, line) for is_error, line in child.lines()]
        assert child.wait() == status
        command = [sys.executable, "-m", "program", *arguments]
        environment = os.environ | {"MARK": "ours"}
        alone = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert alone.returncode == status
        assert [line for is_error, line in forked if is_error] == alone.stderr.splitlines()
        (own,) = [line for is_error, line in forked if not is_error]
        assert own.split(",")[1:-1] == alone.stdout.split(",")[1 : len(own.split(",")) - 1]


def test_two_children_do_not_share_their_chance(python: WarmPython) -> None:
    printed = []
    for _ in range(2):
        child = python.start("program")
        printed += [line.rpartition(",")[2] for is_error, line in child.lines() if not is_error]
        child.wait()
    assert printed[0] != printed[1]


def test_a_killed_child_is_told_from_one_that_ended(python: WarmPython) -> None:
    child = python.start("waits")
    lines = child.lines()
    assert next(lines) == (False, "ready")
    os.kill(child.pid, signal.SIGKILL)
    assert list(lines) == []
    assert child.wait() == 128 + signal.SIGKILL


def test_python_on_the_path_of_a_stage_is_a_fork_and_passes_on_that_it_shall_end(python: WarmPython) -> None:
    command = [str(FOLDER / "python"), "-m", "waits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"MARK": "ours"}) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.terminate()
        assert client.wait(10) == 128 + signal.SIGKILL  # it had no time to report an end of its own


def test_where_nobody_answers_it_is_an_interpreter(tmp_path: Path, python: WarmPython) -> None:
    command = [str((FOLDER / "python").resolve()), "-c", "print(6 * 7)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "42\n"
    command = [str((FOLDER / "python").resolve()), "-m", "json.tool", "--help"]
    elsewhere = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "usage" in elsewhere.stdout
