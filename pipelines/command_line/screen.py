"""Tables for people: drawn by Rich on a terminal, plain aligned text in a file or a pipe."""

import sys
from collections.abc import Sequence

Row = Sequence[str]


def is_terminal() -> bool:
    """Whether a person sees the output as it comes."""
    return sys.stdout.isatty()


def table(rows: Sequence[Row], head: Row = ()) -> None:
    """Print rows of cells, with the names of the columns if there are any."""
    if is_terminal():
        drawn(rows, head)
        return
    every = [head, *rows] if head else list(rows)
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    for row in every:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def drawn(rows: Sequence[Row], head: Row) -> None:
    """The same on a terminal, where long cells are wrapped."""
    from rich import box  # noqa: PLC0415 - slow
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(box=box.SIMPLE_HEAD if head else None, show_header=bool(head), header_style="bold", pad_edge=False)
    for name in head or [""] * len(rows[0]):
        grid.add_column(name, overflow="fold", no_wrap=not grid.columns)
    for row in rows:
        first, *others = row
        grid.add_row(Text(first, style="cyan"), *map(Text, others))
    Console().print(grid)


def marked(mark: str, colour: str, text: str) -> None:
    """Print a line that begins with a coloured mark."""
    if not is_terminal():
        print(f"{mark}{text}")
        return
    from rich.console import Console  # noqa: PLC0415 - slow
    from rich.text import Text  # noqa: PLC0415

    Console().print(Text.assemble((mark, colour), text), soft_wrap=True)


def size(count: float) -> str:
    """Bytes for people: `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
