"""A folder that we did not make, or that was changed since, is never touched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data import sources
from data.sources import BUNDLED, SOURCES, main


def test_a_set_that_is_there_is_left_and_made_again_by_other_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "digits"
    assert main(["digits", "--out", str(out)]) == 0
    first = (out / "0" / "0000.png").stat().st_ino
    assert main(["digits", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"The folder {out} is there already. Remove it to fetch digits again.\n"
    assert (out / "0" / "0000.png").stat().st_ino == first
    (tmp_path / "other.py").write_text("# a later version\n")
    monkeypatch.setattr(sources, "CODE", tmp_path / "other.py")
    assert main(["digits", "--out", str(out)]) == 0
    assert (out / "0" / "0000.png").stat().st_ino != first
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["digits"]


def add(folder: Path) -> None:
    (folder / "mine.png").write_bytes(b"mine")


def change(folder: Path) -> None:
    (folder / "0" / "0000.png").write_bytes(b"mine")


def remove(folder: Path) -> None:
    (folder / "0" / "0000.png").unlink()


@pytest.mark.parametrize("touch", [add, change, remove])
def test_a_fetched_set_that_was_changed_is_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], touch: Callable[[Path], None]
) -> None:
    out = tmp_path / "digits"
    main(["digits", "--out", str(out)])
    touch(out)
    before = images_of(out)
    assert main(["digits", "--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"data.sources: The folder {out} was changed since it was fetched, ")
    assert images_of(out) == before


@pytest.mark.parametrize("name", [*BUNDLED, *SOURCES])
def test_a_folder_of_the_users_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    out = tmp_path / name
    out.mkdir()
    add(out)
    assert main([name, "--out", str(out)]) == 1
    sentence = (
        f"data.sources: The folder {out} was not fetched by this project, so it is not replaced by the public set"
    )
    assert capsys.readouterr().err.startswith(sentence)
    assert images_of(out) == {"mine.png": b"mine"}


def images_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}
