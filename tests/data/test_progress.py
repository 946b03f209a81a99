"""What a person sees while long work runs."""

import io

import pytest

from data.progress import Progress, Reading, read


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_after_a_second_then_every_ten_and_one_at_the_close() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1100, "pretrain@simclr", "images", stream=stream, clock=clock) as progress:
        for second in range(1, 12):
            clock.now = second / 10 if second == 1 else float(second - 1)
            progress.advance(100, loss="4.10")
    assert stream.getvalue().splitlines() == [
        "pretrain@simclr 200/1,100 images · 200 images/s · 0:04 left · loss 4.10",
        "pretrain@simclr 1,100/1,100 images · 110 images/s · 0:10 taken · loss 4.10",
    ]


def test_the_rate_leaves_out_what_an_earlier_run_had_done() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(5_000_000, "set.tgz", "bytes", done=1_000_000, stream=stream, clock=clock)
    clock.now = 2.0
    progress.advance(2_000_000)
    assert stream.getvalue() == "set.tgz 3.0 MB/5.0 MB · 1.0 MB/s · 0:02 left\n"


def test_no_time_left_is_guessed_from_the_first_image_of_many() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(1797, "prepare", "images", stream=stream, clock=clock)
    clock.now = 2.0
    progress.advance(1)
    assert stream.getvalue() == "prepare 1/1,797 images · 0.50 images/s\n"


def test_without_a_total_there_is_no_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(None, "scan", "images", stream=stream, clock=clock)
    clock.now = 4.0
    progress.advance(2)
    assert stream.getvalue() == "scan 2 images · 0.50 images/s\n"


def test_work_that_failed_has_no_closing_line() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress(3, "prepare", "images", stream=stream):
        raise RuntimeError
    assert stream.getvalue() == ""


def test_a_terminal_has_a_bar_with_its_figures() -> None:
    stream = Terminal()
    with Progress(4, "prepare", "images", done=1, stream=stream) as progress:
        progress.advance(3, loss="4.10")
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("prepare: 100%")
    assert "4/4" in last
    assert "loss 4.10" in last
    assert "images" in last


@pytest.mark.parametrize(
    ("line", "reading"),
    [
        ("pretrain@mae 0/1,100 images", Reading(0.0, "", "")),
        ("pretrain@mae 550/1,100 images · 200 images/s", Reading(0.5, "", "")),
        ("pretrain@mae 550/1,100 images · 200 images/s · 1:02:04 left", Reading(0.5, "1:02:04", "")),
        (
            "pretrain@mae 550/1,100 images · 9 images/s · 0:04 left · loss 4 · lr 2",
            Reading(0.5, "0:04", "loss 4 · lr 2"),
        ),
        ("pretrain@mae 1,100/1,100 images · 110 images/s · 0:10 taken · loss 4.10", Reading(1.0, "", "loss 4.10")),
        ("a set.tgz 900.0 KB/1.8 MB · 1.0 MB/s · 0:02 left", Reading(0.5, "0:02", "")),
        ("count 12 files · 3 files/s", Reading(0.0, "", "")),
        ("The loss is nan at step 3/7. Lower dino.optim.lr.", None),
        ("mae: linear_1 70.9 · knn_1 68.0", None),
        ("42", None),
    ],
)
def test_a_line_is_read_back(line: str, reading: Reading | None) -> None:
    assert read(line) == reading
