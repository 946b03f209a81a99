"""What the documents name is there."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^## .*: `models/\w+/(\w+)\.py`$")
MODULES = {path.stem: path for path in (ROOT / "models").rglob("*.py") if path.stem != "__init__"}


def rows() -> list[tuple[str, str]]:
    """(file, name) of every name in backticks in the tables of docs/methods.md whose heading names a file."""
    found: list[tuple[str, str]] = []
    file = None
    for line in (ROOT / "docs/methods.md").read_text().splitlines():
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
    words = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE)
    assert sorted(words) == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


SNIPPETS = [
    (path.name, code)
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("page", "code"), SNIPPETS, ids=[page for page, _ in SNIPPETS])
def test_what_a_snippet_imports_is_there(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names)
