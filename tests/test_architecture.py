"""What may import what, how large a file may be and what it may be called, and the names of the graph."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DOWNLOAD = STAGES.pop("download")  # the one whose module is in data/
# What each layer consists of, a package or a module at its top. Each imports only what stands before it.
LAYERS = {
    "data": "disk progress splits decoding shards pool folders batches origin download sources prepare",
    "models": "precision parallel optim signals encoders views evaluation diagnosis method baselines methods start "
    "diagnose saved",
    "serving": "host worker client rollout torchserve fastapi bulk deploy watchdog server app embed",
    "pipelines": "project machine saving registry engine evaluation estimation release reporting orchestration studies "
    f"{' '.join(STAGES)} estimate plan flow drift command_line",
    "benchmarks": "workspace report speed endpoint studies endurance __main__",
}
GPU_PAGE = ROOT / "docs/tutorials/a-gpu-machine.md"
PLATFORMS = {"mlflow", "dvc", "prefect"}
FILES = [path.relative_to(ROOT) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
PRODUCT = [path for path in FILES if path.parts[0] != "benchmarks"]
ABSENT = PLATFORMS | {"onnx", "onnxscript", "onnxruntime", "sklearn", "scipy", "pandas", "requests", "safetensors"}
ABSENT |= {"ts", "model_archiver", "tqdm", "PIL", "psutil"}  # of a machine that only trains


@cache
def imported(path: Path) -> frozenset[str]:
    """What a file imports, at its top or anywhere in it: dotted names, of modules and of what is taken from them."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def part(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


@pytest.mark.parametrize(
    ("layer", "never"),
    [
        ("data", {"models", "pipelines", "serving", "benchmarks", "tests"} | PLATFORMS),
        ("models", {"data", "pipelines", "serving", "benchmarks", "tests"} | PLATFORMS),
        ("serving", {"models", "pipelines", "benchmarks", "tests"} | PLATFORMS),
        ("pipelines", {"benchmarks", "tests"}),
    ],
)
def test_a_layer_imports_no_layer_beside_or_above_it(layer: str, never: set[str]) -> None:
    broken = {str(path): tops(path) & never for path in FILES if path.parts[0] == layer}
    assert not {path: names for path, names in broken.items() if names}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer: str) -> None:
    """A part imports the parts before it in the list, and itself."""
    parts = LAYERS[layer].split()
    files = [path for path in FILES if path.parts[0] == layer and part(path) != "__init__"]
    assert {part(path) for path in files} == set(parts)
    above = {name: [f"{layer}.{other}" for other in parts[parts.index(name) + 1 :]] for name in parts}
    broken = {str(path): imported(path) & set(above[part(path)]) for path in files}
    assert not {path: sorted(names) for path, names in broken.items() if names}


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = {module(path): path for path in FILES}
    found = {name: {each for each in imported(path) if each in files and each != name} for name, path in files.items()}
    while leaves := {name for name, needs in found.items() if not needs & found.keys()}:
        found = {name: needs for name, needs in found.items() if name not in leaves}
    assert not sorted(found)


def test_stages_do_not_import_stages() -> None:
    stages = {f"pipelines.{name}" for name in STAGES}
    assert not {str(path) for path in PRODUCT if module(path) in stages and imported(path) & stages - {module(path)}}


@pytest.mark.parametrize(
    ("platform", "speakers"),
    [
        (
            "mlflow",
            {
                *("registry.mlflow_store", "registry.runs", "registry.receipts", "registry.sync", "register", "export"),
                *("orchestration.warm.server", "studies.children"),
            },
        ),
        ("prefect", {"drift", *(f"orchestration.prefect_{name}" for name in ("flow", "server", "study"))}),
        ("dvc", {"orchestration.dvc_graph", "orchestration.dvc_process", "orchestration.warm.server"}),
    ],
)
def test_a_platform_is_spoken_to_from_its_own_modules(platform: str, speakers: set[str]) -> None:
    assert {module(path) for path in PRODUCT if platform in tops(path)} == {f"pipelines.{name}" for name in speakers}


def test_no_file_is_a_lumber_room() -> None:
    assert not {str(path) for path in FILES if path.stem in {"utils", "misc", "common", "helpers"}}
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in PRODUCT}
    assert not {path: count for path, count in lines.items() if count > 250}


def test_no_package_holds_more_than_fifteen_modules() -> None:
    held = Counter(path.parent for path in FILES if path.stem != "__init__")
    assert not {str(package): count for package, count in held.items() if count > 15}


def test_every_package_says_what_it_holds() -> None:
    packages = [path for path in FILES if path.name == "__init__.py"]
    assert {path.parent for path in packages} == {path.parent for path in FILES}
    assert not [str(path) for path in packages if not ast.get_docstring(ast.parse((ROOT / path).read_text()))]


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "models"], ids=str)
def test_every_public_name_of_the_models_has_a_docstring(path: Path) -> None:
    """One that overrides another has that one's; the shapes of a `forward` are in its class's."""
    here = importlib.import_module(module(path))
    silent = []
    for name, thing in vars(here).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != here.__name__ or not callable(thing):
            continue
        if not thing.__doc__ or thing.__doc__.startswith(f"{name}("):  # which a dataclass writes by itself
            silent.append(name)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        methods = [of for of, what in members if inspect.isfunction(what) or isinstance(what, property | classmethod)]
        silent += [f"{name}.{of}" for of in methods if of[0] != "_" and not inspect.getdoc(getattr(thing, of))]
    assert not silent


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_called_as_its_module(name: str) -> None:
    stage = STAGES[name]
    spec = stage.get("do", stage)
    assert spec["cmd"] == f"python -m pipelines.{name}" + (" ${item}" if "foreach" in stage else "")
    assert f"pipelines/{name}.py" in spec["deps"]


def test_what_is_downloaded_says_the_params_and_never_replaces_a_folder() -> None:
    assert DOWNLOAD["foreach"] == "${download}"
    assert DOWNLOAD["do"]["outs"] == [{"data/raw/${item}": {"persist": True}}]


def test_a_stage_reads_its_own_section_of_the_settings_and_no_other_file_of_numbers() -> None:
    for name, stage in STAGES.items():
        spec = stage.get("do", stage)
        own = f"{name}.${{item}}" if "foreach" in stage else name
        assert spec.get("params") in (None, [{"artifacts/settings.yaml": [own]}]), name
        assert ("params" in spec) == (name not in ("settings", "archive"))


def test_the_pipeline_is_short() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 150


def test_no_other_module_names_a_method() -> None:
    """Neither its key nor its class. Files of public weights have their authors' names, which only encoders know."""
    keys = {"simclr", "mae", "dino"}
    for path in PRODUCT:
        if path.parts[:2] == ("models", "methods") or path == Path("models/encoders/public.py"):
            continue
        named = {
            node.value for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Constant)
        }
        modules = {f"models.methods.{key}" for key in keys}
        assert not named & keys, path
        assert not {name for name in imported(path) if any(name.startswith(each) for each in modules)}, path


@pytest.mark.parametrize("path", PRODUCT, ids=str)
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
    """The files that docs/tutorials/a-gpu-machine.md carries there, and none of the packages that are not there."""
    spec = re.search(r"rsync -a --relative (.*) gpu:", GPU_PAGE.read_text(encoding="utf-8"))
    assert spec
    for pattern in spec[1].split():
        for path in ROOT.glob(f"{pattern}/**/*.py" if (ROOT / pattern).is_dir() else pattern):
            (to := tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    program = f"import sys; sys.modules |= dict.fromkeys({sorted(ABSENT)}); import pipelines.pretrain; "
    program += "from pipelines.project import stage; stage.run('x', lambda: print('trained'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "trained\n", done.stderr.splitlines()[-3:]
