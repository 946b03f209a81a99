"""The reference page of all parameters: `python -m pipelines.project.parameter_reference` writes it.

Types, defaults and limits come from the dataclasses. The meaning of a field is the comment at the end of its line.
"""

import ast
import inspect
import io
import textwrap
import tokenize
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from models.encoders import ENCODERS
from models.encoders.encoder import EncoderParams
from models.methods import METHODS
from models.optim import OptimParams
from models.views.augmentation import ViewParams
from pipelines.project.config import Sections
from pipelines.project.parse import FROM_ZERO, LARGE, MOST, TIMES
from serving.host.command import Parser

PAGE = Path("docs/reference/parameters.md")
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
SHARED = {EncoderParams: "encoder", OptimParams: "optim", ViewParams: "views"}  # sections inside of other sections
OPENING = """# Parameters

After this page you know every key of `params.yaml`: its type, its default and its meaning.

```
cp recipes/photos.yaml params.yaml     # start from a recipe, then edit it
```

- A key without a default is required. An unknown key is an error.
- After a run, `artifacts/settings.yaml` shows every value that was used, including the defaults.
- [Write a params file](../how-to/write-a-params-file.md) shows how to change and check the file.
- The command `python -m pipelines.project.parameter_reference` writes this page. Do not edit it by hand.
"""
SAID = {
    "encoder": "`encoder` is a section inside of `simclr`, `mae` and `dino`. Its keys depend on `arch`.",
    "optim": "`optim` is a section inside of every section that trains.",
    "views": "These keys describe one augmented view. They are used by `finetune.views`, `supervised.views`, "
    "`pseudolabel.views`, `fixmatch.weak` and `fixmatch.strong`.",
}


@dataclass(frozen=True)
class Parameter:
    """One row of a table."""

    key: str
    kind: str
    default: str
    allowed: str
    meaning: str


def main() -> None:
    Parser(prog="python -m pipelines.project.parameter_reference", description=__doc__).parse_args()
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page, as Markdown."""
    hints = get_type_hints(Sections)
    parts = [OPENING, section("Top level", Sections)]
    parts += [section(f"`{name}`", METHODS[name].PARAMS) for name in METHODS]
    parts += [
        section(f"`{name}`", hints[name]) for name in (f.name for f in fields(Sections)) if is_section(hints[name])
    ]
    for kind, name in SHARED.items():
        kinds = dict.fromkeys(ENCODERS.values()) if kind is EncoderParams else {kind: None}
        parts.append(f"## `{name}`\n\n{SAID[name]}\n")
        for each in kinds:
            parts.append(f"{heading(each)}{table(each)}\n")
    return "\n".join(parts)


def heading(kind: type) -> str:
    """Of one kind of encoder: its architectures."""
    archs = [f"`{arch}`" for arch, params in ENCODERS.items() if params is kind]
    return f"### {', '.join(archs)}\n\n" if archs else ""


def section(title: str, kind: type) -> str:
    return f"## {title}\n\n{table(kind)}\n"


def table(kind: type) -> str:
    head = "| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n"
    rows = (f"| `{p.key}` | {p.kind} | {p.default} | {p.allowed} | {p.meaning} |" for p in parameters(kind))
    return head + "\n".join(rows)


def parameters(kind: type) -> Iterator[Parameter]:
    """Of one section, its own keys first."""
    hints = get_type_hints(kind)
    for field in sorted(fields(kind), key=lambda f: f.kw_only is True):
        key, hint = field.name.rstrip("_"), hints[field.name]
        yield Parameter(key, said(hint), default(field), allowed(hint, key), sentence(meaning(kind, field.name)))


def is_section(hint: Any) -> bool:
    return is_dataclass(hint)


def said(hint: Any) -> str:
    """A type in words."""
    if is_section(hint):
        name = next((name for shared, name in SHARED.items() if issubclass(hint, shared)), "")
        return f"section [`{name}`](#{name})" if name else "section"
    if get_origin(hint) is Literal:
        return NAMES[type(get_args(hint)[0])] if len({*map(type, get_args(hint))}) == 1 else "text, or true or false"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(said(of) for of in get_args(hint))
    if get_origin(hint) is tuple:
        of = get_args(hint)
        return f"list of {said(of[0])}s" if of[-1] is Ellipsis else f"list of {len(of)} {said(of[0])}s"
    return NAMES[hint]


def default(field: Field[Any]) -> str:
    return "required" if field.default is MISSING else f"`{written(field.default)}`"


def written(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    if is_dataclass(value):
        own = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
        return f"{{{', '.join(f'{key}: {written(each)}' for key, each in own.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) and round(value, 4) != value else str(value)


def allowed(hint: Any, key: str) -> str:
    """What is known of the values beside their type."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{written(value)}`" for value in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType, tuple):
        found = (allowed(of, key) for of in get_args(hint) if of not in (Ellipsis, types.NoneType))
        return ", or ".join(dict.fromkeys(filter(None, found)))
    if hint is int:
        return f"{int(key not in FROM_ZERO)} to {MOST.get(key, LARGE):,}"
    return f"up to {TIMES[key]:g}" if hint is float and key in TIMES else ""


def meaning(kind: type, name: str) -> str:
    """The comment at the end of the field's line, in the nearest class that has one. Raises LookupError."""
    for each in kind.__mro__:
        if found := comments(each).get(name):
            return found
    raise LookupError(f"{kind.__qualname__}.{name} has no meaning: write a comment at the end of its line.")


@cache
def comments(kind: type) -> dict[str, str]:
    """Field → the comment at the end of its line."""
    if not is_dataclass(kind):
        return {}
    source = textwrap.dedent(inspect.getsource(kind))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    at = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    lines = {node.target.id: node.end_lineno for node in body.body
             if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}  # fmt: skip
    return {name: at[line] for name, line in lines.items() if line in at}


def sentence(text: str) -> str:
    """A comment as a sentence of the table."""
    first = text[0].upper() + text[1:] if text.split(maxsplit=1)[0].strip(",:;").replace("-", "").isalpha() else text
    return first.replace("|", "\\|") + "."


if __name__ == "__main__":
    main()
