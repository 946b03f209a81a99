"""A flow on a terminal: a live table with a row per stage and a line for the whole run."""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data.progress import minutes
from pipelines.orchestration import stop
from pipelines.orchestration.display import Clock, Display, Row, State

MARKS = {
    State.WAITING: ("·", "dim"),
    State.RUNNING: ("●", "cyan"),
    State.DONE: ("✓", "green"),
    State.UNCHANGED: ("–", "dim"),
    State.STOPPED: ("■", "yellow"),
    State.FAILED: ("✗", "bold red"),
}
# The order in which rows are chosen where there is little space.
FIRST = [State.FAILED, State.STOPPED, State.RUNNING, State.DONE, State.WAITING, State.UNCHANGED]
BAR = 18  # columns
AROUND = 5  # lines beside the rows: the title, the whole run, and the prompt


class Board(Display):
    """Redrawn twice a second, removed at the end. Notes stay above it."""

    def __init__(self, names: Sequence[str], console: Console | None = None, clock: Clock = time.monotonic) -> None:
        super().__init__(names, clock)
        self.console = console or Console(highlight=False)
        self._live = Live(get_renderable=self.render, console=self.console, refresh_per_second=2, transient=True)
        self._live.start()
        stop.CLEANUPS.append(self.close)  # the cursor is hidden while the table is there

    def note(self, name: str, text: str) -> None:
        self.console.print(Text.assemble((f"{name}: ", "bold"), text))

    def end(self, name: str, state: State) -> None:
        super().end(name, state)
        if state is State.FAILED:
            self.note(name, self.rows[name].figure or "failed")

    def close(self) -> None:
        self._live.stop()
        if self.close in stop.CLEANUPS:
            stop.CLEANUPS.remove(self.close)

    def render(self) -> RenderableType:
        with self.lock:
            rows, hidden = self._shown(max(4, self.console.height - AROUND))
            table = Table.grid(padding=(0, 2), expand=True)
            for column in ("mark", "stage", "bar", "time"):
                table.add_column(column, no_wrap=True, justify="right" if column == "time" else "left")
            table.add_column("figure", no_wrap=True, overflow="ellipsis", ratio=1)
            for row in rows:
                table.add_row(*self._cells(row))
            return Group(self._title(), table, *([Text(hidden, style="dim")] if hidden else []))

    def _shown(self, room: int) -> tuple[list[Row], str]:
        """The rows that fit on the screen, the most interesting ones first chosen, and what is said of the others."""
        rows = list(self.rows.values())
        if len(rows) <= room:
            return rows, ""
        chosen = sorted(rows, key=lambda row: (FIRST.index(row.state), self.running(row)))[: room - 1]
        names = {row.name for row in chosen}
        rest = [row.state for row in rows if row.name not in names]
        counts = ", ".join(f"{rest.count(state)} {state}" for state in FIRST if state in rest)
        return [row for row in rows if row.name in names], f"and {counts}"

    def _cells(self, row: Row) -> list[RenderableType]:
        mark, style = MARKS[row.state]
        quiet = "dim" if row.state in (State.WAITING, State.UNCHANGED) else ""
        bar: RenderableType = ""
        if row.state is State.RUNNING:
            share = row.share if row.share else None  # without a share the bar only moves
            bar = ProgressBar(total=1 if share else None, completed=share or 0, width=BAR, pulse=not share)
            spent = f"{row.left} left" if row.left else minutes(self.running(row))
        else:
            spent = minutes(row.seconds) if row.state in (State.DONE, State.STOPPED, State.FAILED) else ""
        figure = row.figure or (str(row.state) if quiet else "")
        return [Text(mark, style), Text(row.name, quiet), bar, Text(spent, quiet), Text(figure, quiet or "default")]

    def _title(self) -> RenderableType:
        ended = sum(row.state not in (State.WAITING, State.RUNNING) for row in self.rows.values())
        left = self.left()
        parts = [f"{ended} of {len(self.rows)} stages", minutes(self.elapsed())]
        if left is not None:
            parts.append(f"about {minutes(left)} left")
        return Text(" · ".join(parts), style="bold")
