"""What a flow shows while it runs, in a file and on a terminal."""

import io
import re

from rich.console import Console

from data.progress import Reading
from pipelines.orchestration import stop
from pipelines.orchestration.board import Board
from pipelines.orchestration.display import Display, State
from pipelines.orchestration.log_lines import LogLines


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(stream: io.StringIO) -> list[str]:
    return [re.sub(" +", " ", line.strip()) for line in stream.getvalue().splitlines()]


def test_a_short_stage_is_one_line_and_one_with_nothing_to_say_is_none() -> None:
    clock, stream = Clock(), io.StringIO()
    with LogLines(["settings", "download@digits", "prepare"], stream, clock) as shown:
        shown.end("settings", State.UNCHANGED)
        clock.now = 3.0
        shown.start("download@digits")
        shown.start("prepare")
        shown.figure("prepare", "1,797 images")
        clock.now = 5.0
        shown.announce()
        shown.end("download@digits", State.DONE)
        shown.end("prepare", State.DONE)
    assert lines(stream) == ["0:05 prepare done in 2 s · 1,797 images"]


def test_one_line_each_half_minute_says_what_runs_and_how_far_it_is() -> None:
    clock, stream = Clock(), io.StringIO()
    with LogLines(["pretrain@mae", "export@mae"], stream, clock) as shown:
        shown.start("pretrain@mae")
        for second in range(1, 66):
            clock.now = float(second)
            if second == 45:
                shown.expect({"pretrain@mae": 60.0, "export@mae": 15.0})
                shown.start("export@mae")
            shown.announce()
            shown.progress("pretrain@mae", Reading(second / 100, "0:30", f"loss {second}"))
        shown.end("pretrain@mae", State.DONE)
    assert lines(stream) == [
        "0:30 running pretrain@mae 29 % (0:30 left)",
        "1:00 running about 0:17 left: pretrain@mae 59 % (0:30 left), export@mae",
        "1:05 pretrain@mae done in 65 s · loss 65",
    ]


def test_the_time_left_is_the_estimate_corrected_by_the_pace_so_far() -> None:
    clock = Clock()
    shown = Display(["pretrain@mae", "finetune@mae"], clock)
    assert shown.left() is None
    clock.now = 10.0
    shown.expect({"pretrain@mae": 60.0, "finetune@mae": 40.0})
    shown.start("pretrain@mae")
    shown.progress("pretrain@mae", Reading(0.5, "", ""))
    clock.now = 70.0  # 30 of 100 estimated seconds are done, in 60: the other 70 take 140
    assert shown.left() == 140.0
    shown.end("pretrain@mae", State.DONE)
    assert shown.left() == 40.0


def board(height: int, names: list[str], clock: Clock) -> tuple[Board, Console]:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=height, legacy_windows=False)
    return Board(names, console, clock), console


def drawn(shown: Board, console: Console) -> list[str]:
    page = io.StringIO()
    Console(file=page, width=console.width).print(shown.render())
    return lines(page)


def test_the_board_has_a_row_per_stage_and_a_line_for_the_whole_run() -> None:
    clock = Clock()
    shown, console = board(40, ["settings", "prepare", "pretrain@mae", "probe@mae"], clock)
    with shown:
        shown.end("settings", State.UNCHANGED)
        shown.start("prepare")
        shown.figure("prepare", "1,797 images")
        clock.now = 2.0
        shown.end("prepare", State.DONE)
        shown.start("pretrain@mae")
        shown.progress("pretrain@mae", Reading(0.5, "0:42", "loss 0.31"))
        title, *rows = drawn(shown, console)
    assert title == "2 of 4 stages · 0:02"
    assert [re.sub("[━╸╺]+ ", "", row) for row in rows] == [
        "– settings unchanged",
        "✓ prepare 0:02 1,797 images",
        "● pretrain@mae 0:42 left loss 0.31",
        "· probe@mae waiting",
    ]


def test_a_low_terminal_shows_what_runs_and_counts_the_rest() -> None:
    clock = Clock()
    names = [f"stage@{n}" for n in range(30)]
    shown, console = board(12, names, clock)
    with shown:
        for name in names[:10]:
            shown.end(name, State.UNCHANGED)
        shown.start("stage@20")
        rows = drawn(shown, console)
    assert len(rows) <= 12
    assert any("● stage@20" in row for row in rows)
    assert rows[-1] == "and 14 waiting, 10 unchanged"


def test_the_terminal_is_as_it_was_after_the_end_and_after_a_sudden_one() -> None:
    for end in (Board.close, lambda shown: stop.CLEANUPS[-1]()):
        shown, console = board(40, ["prepare"], Clock())
        end(shown)
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0  # the cursor is shown again
        assert shown.close not in stop.CLEANUPS
