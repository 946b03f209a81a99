"""Odd files, names and places: each is a row with its reason, or one sentence that stops the command."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving import ServingError
from serving.client import Client
from serving.embed import Direct, Endpoint, make
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from tests.serving.bulk.embedding import Counting, N, start
from tests.serving.conftest import ROOT, MakeArchive, entry, picture, promote

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_images_is_one_sentence(name: str, model: Model, direct: Direct, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServingError, match=r"absent cannot be read|empty holds no image"):
        make(tmp_path / name, tmp_path / "out.parquet", model, direct)


def rows(out: Path) -> dict[str, str | None]:
    """Path → error."""
    return {row["path"]: row["error"] for row in pq.read_table(out).to_pylist()}


def test_every_odd_entry_of_a_folder_is_a_row(model: Model, direct: Direct, tmp_path: Path) -> None:
    """Links to folders are followed; what leads nowhere, in a circle or to no regular file has its reason."""
    folder, elsewhere = tmp_path / "odd", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for place in (folder / "plain.png", elsewhere / "linked.png", Path(os.fsdecode(bytes(folder) + b"/caf\xe9.png"))):
        place.write_bytes(picture(1)[0])
    (folder / "class").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(folder)
    (folder / "lost.png").symlink_to("nowhere.png")
    (folder / "lost class").symlink_to("/mnt/gone")
    (folder / "endless.png").symlink_to("endless.png")
    (folder / "device.png").symlink_to("/dev/zero")  # would be read until the memory is full
    os.mkfifo(folder / "pipe.png")  # whoever reads it waits
    make(folder, tmp_path / "v.parquet", model, direct)
    circle = "This links to a folder above it, which was not read again."
    assert rows(tmp_path / "v.parquet") == {
        "again/circle": circle,
        "again/linked.png": None,
        r"caf\xe9.png": None,
        "class/circle": circle,
        "class/linked.png": None,
        "device.png": "It cannot be read: it is a device, not a regular file.",
        "endless.png": "It cannot be read: Too many levels of symbolic links.",
        "lost class": "It cannot be read: it links to /mnt/gone, which is missing.",
        "lost.png": "It cannot be read: it links to nowhere.png, which is missing.",
        "pipe.png": "It cannot be read: it is a pipe, not a regular file.",
        "plain.png": None,
    }


def test_odd_entries_do_not_stop_the_endpoint_either(model: Model, second: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    Path(os.fsdecode(bytes(folder) + b"/\xff.png")).write_bytes(picture(1)[0])
    Path(os.fsdecode(bytes(folder) + b"/\xfe.png")).write_bytes(b"words")
    (folder / "lost.png").symlink_to("nowhere.png")
    make(folder, tmp_path / "v.parquet", model, Endpoint(Client.of(second), "digits-encoder"))
    found = rows(tmp_path / "v.parquet")
    assert found[r"\xff.png"] is None
    assert (found[r"\xfe.png"] or "").startswith(f"{folder}/\\xfe.png: This image cannot be used")
    assert found["lost.png"] == "It cannot be read: it links to nowhere.png, which is missing."


def test_names_of_any_kind_pass_the_command_in_an_ascii_locale(make_archive: MakeArchive, tmp_path: Path) -> None:
    promote(tmp_path, entry("digits-encoder", make_archive()))
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("grün.png".encode(), b"\xff.png"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(picture(1)[0])
    running = start("f", "--out", "v-ü.parquet", cwd=tmp_path, **ASCII)
    out, err = running.communicate()
    assert (running.returncode, err) == (0, "embed 2/2 images\n")
    assert out.startswith("v-?.parquet: 2 embeddings")
    assert rows(tmp_path / "v-ü.parquet") == {"grün.png": None, r"\xff.png": None}


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("words.parquet", r"that file is no table of this command\. Name another file\.$"),
        ("others.parquet", r"that file is no table of this command\. Name another file\.$"),
        ("pipe", r"that file is no table of this command"),
        ("folder", r"which is a folder\. Name a file in it: .*/folder/vectors\.parquet\.$"),
        ("none/v.parquet", r"but there is no folder .*/none\. Create it first\.$"),
        ("words.parquet/v.parquet", r"but there is no folder .*/words\.parquet\."),
        (
            "kept.parquet",
            r"kept\.parquet\.parts is for parts of the table, but holds mine\.txt\. Name another --out\.$",
        ),
    ],
)
def test_a_place_that_is_none_for_a_table_is_one_sentence_and_stays_as_it_was(
    photos: Path, model: Model, direct: Direct, tmp_path: Path, place: str, sentence: str
) -> None:
    (tmp_path / "words.parquet").write_text("no table")
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "others.parquet")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "kept.parquet.parts").mkdir()
    (tmp_path / "kept.parquet.parts" / "mine.txt").write_text("mine")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(ServingError, match=sentence):
        make(photos, tmp_path / place, model, counting := Counting(direct))
    assert counting.asked == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_a_read_only_checkout_embeds_to_elsewhere_or_says_why_not(
    photos: Path, make_archive: MakeArchive, tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    promote(checkout := tmp_path / "checkout", entry("digits-encoder", make_archive()))
    script = 'mount --bind . . && mount -o remount,ro,bind "$PWD" && cd "$PWD" && exec "$@"'
    for out, status, sentence in (
        ("v.parquet", 1, "v.parquet.parts cannot be written: the file system is read-only. Run from a copy"),
        ("../v.parquet", 0, ""),
    ):
        command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "serving.embed"]
        done = subprocess.run([*command, str(photos), "--out", out], cwd=checkout, check=False, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)  # fmt: skip
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
        assert sentence in done.stderr
    assert pq.read_table(tmp_path / "v.parquet").num_rows == N
