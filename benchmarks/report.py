"""Show the figures as tables: on a terminal, and in Markdown for docs/explanation/benchmarks.md."""

from collections.abc import Mapping, Sequence
from typing import Any

# part → figure → what issue and papers ask for
TARGETS = {
    "simclr": {"images/s": "≥ 30,000", "input wait, %": "< 2", "MFU, %": ""},
    "mae": {"images/s": "", "MFU, %": "≥ 40", "input wait, %": "< 2"},
    "dino": {"images/s": "", "MFU, %": "≥ 40", "input wait, %": "< 2"},
    "anchor": {"images/s": "871 (published, one H200)", "MFU, %": "", "input wait, %": ""},
    "simclr-200": {"linear, %": "≥ 88", "kNN, %": "84.7 (lightly, 200 epochs)"},
    "simclr-long": {"linear, %": "≥ 90.5 (published, 1,000 epochs: 90.7 to 91)", "kNN, %": ""},
    "dino-200": {"linear, %": "89.5 (solo-learn, 1,000 epochs)", "kNN, %": "84.0 (lightly, 200 epochs)"},
    "mae-200": {"linear, %": "none published for ViT-tiny/4", "kNN, %": ""},
}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rows that have the same columns."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([shown(row[c]) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: Any) -> str:
    """A figure with three digits or, when large, whole."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def gpu_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of `benchmarks.speed.gpu`: figures beside their targets, then the tables of single parts."""
    if not found:
        return "Nothing is measured yet."
    some = next(iter(found.values()))
    blocks = [
        f"{some['machine']}, torch {some['torch']}{', in miniature: no figure of it means anything' * some['tiny']}"
    ]
    rows = []
    for part, targets in TARGETS.items():
        for figure, target in targets.items() if part in found else []:
            rows.append({"part": part, "figure": figure, "found": found[part][figure], "target or published": target})
        for figure in ("memory, GB", "batch", "epochs", "minutes in steps"):
            if figure in found.get(part, {}):
                rows.append({"part": part, "figure": figure, "found": found[part][figure], "target or published": ""})
    for part in ("peak", "lightly"):
        for figure, value in found.get(part, {}).items():
            if figure not in ("machine", "torch", "tiny"):
                target = "≥ 20" if figure.startswith("ours over") else ""
                rows.append({"part": part, "figure": figure, "found": value, "target or published": target})
    blocks += [markdown(rows)] if rows else []
    blocks += [markdown(found[part]["rows"]) for part in ("variants", "masking") if part in found]
    return "\n\n".join(blocks)
