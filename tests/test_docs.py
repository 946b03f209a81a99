"""What the documents name is there, and the site can be built."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipelines.project import ConfigError, parameter_reference
from pipelines.project.config import converted

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
HEADING = re.compile(r"^## .*: `models/\w+/(\w+)\.py`$")
MODULES = {path.stem: path for path in (ROOT / "models").rglob("*.py") if path.stem != "__init__"}


def rows() -> list[tuple[str, str]]:
    """(file, name) of every name in backticks in the tables of docs/reference/methods.md whose heading names a file."""
    found: list[tuple[str, str]] = []
    file = None
    for line in (ROOT / "docs/reference/methods.md").read_text().splitlines():
        if line.startswith("## "):
            heading = HEADING.match(line)
            file = heading[1] if heading else None
        elif file and line.startswith("|"):
            found += [(file, name) for name in re.findall(r"`([^`]+)`", line)]
    return found


@cache
def defined(file: str) -> frozenset[str]:
    """Functions, classes and constants of a module of models/, and what its classes have, as `Class.member`."""
    found = set()
    for node in ast.parse(MODULES[file].read_text()).body:
        found |= targets(node)
        if isinstance(node, ast.ClassDef):
            members = set().union(*(targets(inner) for inner in node.body))
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                    members.add(inner.attr)  # self.name = …
            found |= {f"{node.name}.{member}" for member in members}
    return frozenset(found)


def targets(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return {name}
    return set()


def test_methods_and_baselines_are_mapped() -> None:
    assert {file for file, _ in rows()} == {"simclr", "mae", "dino", "supervised", "pseudolabel", "fixmatch"}
    assert len(rows()) > 60


@pytest.mark.parametrize(("file", "name"), sorted(set(rows())))
def test_a_name_in_the_table_is_in_the_code(file: str, name: str) -> None:
    first, _, rest = name.partition(".")
    if first in MODULES and rest:
        file, name = first, rest
    assert name in defined(file), f"{MODULES[file]} has no {name}"


def test_every_recipe_is_in_its_table() -> None:
    words = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/reference/recipes.md").read_text(), re.MULTILINE)
    assert sorted(words) == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def blocks(kind: str) -> list[tuple[str, str]]:
    """(page, code) of every fenced block of this kind."""
    fence = re.compile(rf"^```{kind}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(str(path.relative_to(ROOT)), code) for path in PAGES for code in fence.findall(path.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=[page for page, _ in blocks("python")])
def test_what_a_snippet_imports_is_there(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names)


@pytest.mark.parametrize(("page", "code"), blocks("yaml"), ids=[page for page, _ in blocks("yaml")])
def test_a_snippet_of_params_is_read_over_a_recipe(page: str, code: str) -> None:
    """A section in a page may be short: its keys are put over those of recipes/digits.yaml."""
    if page.endswith("add-a-method.md"):
        pytest.skip("tests/test_add_a_method.py runs it")
    params = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
    for key, value in yaml.safe_load(code).items():
        params[key] = params[key] | value if isinstance(value, dict) else value
    converted(params)


def test_every_module_that_a_page_runs_is_there() -> None:
    named = {(path.name, name) for path in PAGES for name in re.findall(r"python -m ([\w.]+)", path.read_text("utf-8"))}
    assert len(named) > 30
    assert not {(page, name) for page, name in named if not importlib.util.find_spec(name)}


def test_every_make_target_that_a_page_runs_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {"docs"}
    named = {
        name for path in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert named <= targets


def test_every_source_file_that_a_page_names_is_there() -> None:
    folders = r"(?:benchmarks|data|models|pipelines|recipes|serving|tests)"
    form = re.compile(rf"`({folders}/[\w./-]+\.(?:py|yaml|json|conf|html|properties))`")
    named = {(path.name, name) for path in PAGES for name in form.findall(path.read_text("utf-8"))}
    assert len(named) > 60
    made = {"models/methods/simsiam.py", "models/encoders/convmixer.py", "data/prepared/manifest.json"}
    assert not {(page, name) for page, name in named if name not in made and not (ROOT / name).exists()}


def test_every_page_that_the_tree_names_is_there() -> None:
    """In sources, params, recipes and the pages outside of the site."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    suffixes = {".py", ".yaml", ".yml", ".md", ".toml", ".cff", ".html"}
    files = [ROOT / name for name in done.stdout.split() if Path(name).suffix in suffixes and name != "CHANGELOG.md"]
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        if path.exists()
        for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|png)", path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert not missing


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_from_the_root_lead_to_a_heading(name: str) -> None:
    """GitHub shows these pages; the site does not build them."""
    for target in re.findall(r"\]\(([^)#:]+(?:#[^)]*)?)\)", (ROOT / name).read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        assert (ROOT / file).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_parameter_reference_is_up_to_date() -> None:
    written = (ROOT / parameter_reference.PAGE).read_text(encoding="utf-8")
    assert written == parameter_reference.page(), "run: python -m pipelines.project.parameter_reference"


def test_a_parameter_without_a_meaning_is_named() -> None:
    with pytest.raises(LookupError, match=r"ConfigError\.key has no meaning"):
        parameter_reference.meaning(ConfigError, "key")


@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed; run: make setup")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every link and every anchor of docs/ leads somewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(tmp_path).with_suffix("") for path in tmp_path.rglob("*.html")} >= pages
    asked = [
        page
        for page in tmp_path.rglob("*.html")
        if re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css)"', page.read_text())
    ]
    assert not asked  # nothing is loaded from another site


@pytest.mark.skipif(not importlib.util.find_spec("pipelines.command_line"), reason="there is no foundry here")
def test_every_foundry_command_that_a_page_names_is_there() -> None:
    program = importlib.import_module("pipelines.command_line.program")
    known = {command.name or command.callback.__name__ for command in program.app.registered_commands}
    named = {name for path in PAGES for name in re.findall(r"(?:^|`)foundry ([a-z]+)", path.read_text("utf-8"), re.M)}
    assert named <= known
