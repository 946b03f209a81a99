"""The floors and the rooms: what may import what, what a file may be called, and the graph's names."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "models", "pipelines", "serving")
PLATFORMS = {"mlflow", "dvc", "prefect"}
FILES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def imported(path: Path) -> set[str]:
    """The packages that a file imports, at its top or anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(path.parts[0] if node.level else (node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("data", {"models", "pipelines", "serving"} | PLATFORMS),
        ("models", {"data", "pipelines", "serving"} | PLATFORMS),
        ("serving", {"data", "models", "pipelines"} | PLATFORMS),
        ("pipelines", {"tests"}),
    ],
)
def test_a_floor_imports_nothing_that_it_stands_beside_or_under(package: str, never: set[str]) -> None:
    broken = {str(path): imported(path) & never for path in FILES if path.parts[0] == package}
    assert not {path: names for path, names in broken.items() if names}


@pytest.mark.parametrize(
    ("platform", "speakers"),
    [
        ("mlflow", {"tracking", "sync", "register", "export"}),
        ("prefect", {"flow", "drift"}),
        ("dvc", {"graph", "child"}),
    ],
)
def test_a_platform_is_spoken_to_from_its_own_rooms(platform: str, speakers: set[str]) -> None:
    assert {path.stem for path in FILES if platform in imported(path)} == speakers


def test_no_room_is_a_lumber_room() -> None:
    assert not {str(path) for path in FILES if path.stem in {"utils", "misc", "common", "helpers"}}
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in FILES}
    assert not {path: count for path, count in lines.items() if count > 250}


def test_training_runs_where_the_tools_around_it_are_absent() -> None:
    blocked = {"mlflow", "dvc", "prefect", "onnx", "onnxscript", "onnxruntime", "sklearn", "scipy", "pandas"}
    blocked |= {"requests", "safetensors", "ts", "model_archiver", "tqdm", "PIL", "psutil"}
    program = f"import sys; sys.modules |= dict.fromkeys({sorted(blocked)}); import pipelines.pretrain"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-3:]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_called_as_its_module_and_its_files_exist(name: str) -> None:
    stage = STAGES[name]
    said = stage.get("do", stage)
    assert said["cmd"] == f"python -m pipelines.{name}" + (" ${item}" if "foreach" in stage else "")
    assert f"pipelines/{name}.py" in said["deps"]
    for dep in said["deps"]:
        for item in stage.get("foreach", [""]):
            if (file := dep.replace("${item}", item)).endswith(".py"):
                assert (ROOT / file).is_file(), file


def test_every_section_of_the_params_is_read_by_a_stage() -> None:
    read = set()
    for stage in STAGES.values():
        for key in stage.get("do", stage).get("params", []):
            read |= {key.replace("${item}", item).split(".")[0] for item in stage.get("foreach", [""])}
    for path in [ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")]:
        assert set(yaml.safe_load(path.read_text())) == read, path
