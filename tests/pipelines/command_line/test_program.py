"""What every command of `foundry` has in common: help, examples, options, errors, start-up, Ctrl-C."""

import ast
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from models.methods import METHODS
from pipelines.command_line import module, program, project
from tests.pipelines.command_line.conftest import Foundry
from tests.pipelines.small_project import ROOT, environment

GROUP = get_command(program.app)
COMMANDS = sorted(GROUP.list_commands(typer.Context(GROUP)))  # type: ignore[attr-defined]
MODULES = {
    "run": "pipelines/flow.py",
    "estimate": "pipelines/estimate.py",
    "serve": "serving/server.py",
    "embed": "serving/embed.py",
    "deploy": "serving/deploy.py",
}
SLOW = {"torch", "numpy", "mlflow", "dvc", "prefect", "rich"}


def context(*arguments: str) -> typer.Context:
    """What the command line is understood as; nothing runs."""
    command = GROUP.commands[arguments[0]]  # type: ignore[attr-defined]
    made: typer.Context = command.make_context(arguments[0], list(arguments[1:]))
    return made


def test_these_are_the_commands() -> None:
    expected = "clean deploy doctor embed estimate promote recipes report run serve status study ui"
    assert expected.split() == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_is_a_valid_command(name: str) -> None:
    shown = CliRunner().invoke(program.app, [name, "--help"]).stdout
    example = shown.strip().splitlines()[-1].strip()
    assert example.startswith(f"Example: foundry {name}")
    context(*shlex.split(example.removeprefix("Example: foundry ")))


@pytest.mark.parametrize("name", MODULES)
def test_a_command_has_the_options_of_its_module(name: str) -> None:
    """Those that its parser takes, by their names."""
    calls = [node for node in ast.walk(ast.parse((ROOT / MODULES[name]).read_text())) if isinstance(node, ast.Call)]
    added = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    own = {str(argument.value) for call in added for argument in call.args if isinstance(argument, ast.Constant)}
    declared = {parameter.opts[0] for parameter in GROUP.commands[name].params}  # type: ignore[attr-defined]
    assert {option.lstrip("-") for option in own} == {option.lstrip("-") for option in declared} - {"help"}


def test_options_are_passed_on_as_they_were_given() -> None:
    given = context("run", "--recipe", "digits", "--set", "seeds=3", "--set", "simclr.epochs=5", "--methods", "mae")
    assert module.passed_on(given) == ["--recipe=digits", "--methods=mae", "--set=seeds=3", "--set=simclr.epochs=5"]
    assert module.passed_on(context("estimate", "--recipe", "digits", "--gpus", "8"), ("recipe",)) == [
        *("--gpus=8", "--", "digits")
    ]
    assert module.passed_on(context("deploy", "--rollback")) == ["--rollback"]


def test_paths_are_the_users_not_the_projects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT / "docs")
    inside = module.passed_on(context("embed", "images", "--out", "../vectors.parquet"))
    assert inside == ["--out=vectors.parquet", "--", "docs/images"]
    monkeypatch.chdir(tmp_path)
    outside = module.passed_on(context("embed", "images", "--out", "v.parquet"))
    assert outside == [f"--out={tmp_path}/v.parquet", "--", f"{tmp_path}/images"]


def test_it_works_from_anywhere(foundry: Foundry, tmp_path: Path) -> None:
    """Inside the project, and elsewhere on the project that it was installed from."""
    for folder in (ROOT / "tests", tmp_path):
        done = foundry("deploy", "--status", "--run", "nowhere", cwd=folder)
        place = "tests/nowhere" if folder != tmp_path else str(tmp_path / "nowhere")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"No server runs in {place}.")


def test_in_another_copy_of_the_project_that_copys_command_runs(foundry: Foundry, tmp_path: Path) -> None:
    here = tmp_path / "pipelines" / "command_line"
    here.mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    for folder in (here.parent, here):
        (folder / "__init__.py").touch()
    (here / "__main__.py").write_text("import sys; print('the copy', *sys.argv[1:]); sys.exit(3)")
    done = foundry("embed", "a b", "--out=c", cwd=here)
    assert (done.returncode, done.stdout) == (3, "the copy embed a b --out=c\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? For help: foundry --help"),
        (["serve", "--now"], "No such option: --now. For help: foundry serve --help"),
        (["embed", "folder"], "Missing option '--out'. For help: foundry embed --help"),
        (["recipes", "stl"], "Invalid value for 'NAME': 'stl' is not a recipe. Choose from: cifar10, cifar10-small, "),
        (["run", "--recipe", "x"], "Invalid value for '--recipe': 'x' is not a recipe. Choose from: cifar10, "),
        (["run", "--methods", "mae,x"], "Invalid value for '--methods': 'x' is not a method. Choose from: dino, mae, "),
        (["estimate", "--gpus", "-1"], "Invalid value for '--gpus': "),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_sentence_and_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.start(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(sentence)
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["recipes"], ["status"]], ids=str)
def test_it_starts_without_what_is_slow(arguments: list[str], project: Path) -> None:
    """Nothing has run in this project, so that status has no question for DVC."""
    code = f"import sys; from pipelines.command_line import program; program.app({arguments}, standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(str({SLOW} & sys.modules.keys()))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout
    assert done.stderr == "set()\n"


def test_ctrl_c_ends_it_with_130_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.command_line", "doctor"],
            cwd=ROOT,
            env=environment() | {"MLFLOW_TRACKING_URI": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with silent.accept()[0]:  # it asks now
            os.kill(process.pid, signal.SIGINT)
            _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")


def test_methods_are_known_without_importing_them() -> None:
    assert project.method_names() == sorted(METHODS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("foundry re", ["recipes", "report"]),
        ("foundry run --recipe imagenet-", [name for name in project.recipe_names() if name.startswith("imagenet-")]),
        ("foundry run --methods mae,", ["mae,dino", "mae,simclr"]),
    ],
)
def test_the_shell_completes(line: str, expected: list[str], foundry: Foundry) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    assert foundry(_FOUNDRY_COMPLETE="complete_bash", **words).stdout.split() == expected


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m pipelines.command_line --install-completion; exit $?"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment() | {"HOME": str(tmp_path)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "_FOUNDRY_COMPLETE" in "".join(path.read_text() for path in tmp_path.rglob("*.sh"))
