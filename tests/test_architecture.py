"""The floors and the rooms: what may import what, what a file may be called, and the graph's names."""

import ast
import re
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
ABSENT = PLATFORMS | {"onnx", "onnxscript", "onnxruntime", "sklearn", "scipy", "pandas", "requests", "safetensors"}
ABSENT |= {"ts", "model_archiver", "tqdm", "PIL", "psutil"}  # of a machine that only trains
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DOWNLOAD = STAGES.pop("download")  # the one whose module is in data/


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
        ("serving", {"models", "pipelines"} | PLATFORMS),
        ("pipelines", {"tests"}),
    ],
)
def test_a_floor_imports_nothing_that_it_stands_beside_or_under(package: str, never: set[str]) -> None:
    broken = {str(path): imported(path) & never for path in FILES if path.parts[0] == package}
    assert not {path: names for path, names in broken.items() if names}


@pytest.mark.parametrize(
    ("platform", "speakers"),
    [
        ("mlflow", {"mlflow_store", "tracking", "registry", "sync", "register", "export"}),
        ("prefect", {"flow", "drift", "prefect_server"}),
        ("dvc", {"graph", "child"}),
    ],
)
def test_a_platform_is_spoken_to_from_its_own_rooms(platform: str, speakers: set[str]) -> None:
    assert {path.stem for path in FILES if platform in imported(path)} == speakers


def test_no_room_is_a_lumber_room() -> None:
    assert not {str(path) for path in FILES if path.stem in {"utils", "misc", "common", "helpers"}}
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in FILES}
    assert not {path: count for path, count in lines.items() if count > 250}


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


def test_what_is_downloaded_says_the_params_and_never_replaces_a_folder() -> None:
    assert DOWNLOAD["foreach"] == "${download}"
    assert DOWNLOAD["do"]["outs"] == [{"data/raw/${item}": {"persist": True}}]


def test_every_section_of_the_params_is_read_by_a_stage() -> None:
    read = {"download"}
    for stage in STAGES.values():
        for key in stage.get("do", stage).get("params", []):
            read |= {key.replace("${item}", item).split(".")[0] for item in stage.get("foreach", [""])}
    for path in [ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")]:
        assert set(yaml.safe_load(path.read_text())) == read, path


@pytest.mark.parametrize("path", FILES, ids=str)
def test_text_is_utf_8_in_every_locale(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))) if isinstance(node, ast.Call)]
    assert not [f"line {call.lineno}: {ast.unparse(call)}" for call in calls if in_the_locale(call)]


def in_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text, of a file or of a process, and names no encoding."""
    keys = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keys:
        return False
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    mode = keys.get("mode") or next(iter(call.args[0 if method else 1 :]), ast.Constant("r"))
    opens = name == "open" and isinstance(mode, ast.Constant) and str(mode.value) in {"r", "w", "a", "x", "r+", "w+"}
    return name in {"read_text", "write_text"} or opens or "text" in keys


def test_what_is_carried_to_a_bare_machine_is_enough_to_train_there(tmp_path: Path) -> None:
    """The files that docs/operations.md carries there, and none of the packages that are not there."""
    said = re.search(r"rsync -a --relative (.*) gpu:", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
    assert said
    for pattern in said[1].split():
        for path in ROOT.glob(f"{pattern}/*.py" if (ROOT / pattern).is_dir() else pattern):
            (to := tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    program = f"import sys; sys.modules |= dict.fromkeys({sorted(ABSENT)}); import pipelines.pretrain; "
    program += "from pipelines import stage; stage.run('x', lambda: print('trained'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "trained\n", done.stderr.splitlines()[-3:]
