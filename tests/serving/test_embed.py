"""A folder becomes a table: every image a row, the same vectors either way, and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving import ServingError, embed
from serving.bulk.table import Found
from serving.client import Client
from serving.embed import Direct, Endpoint, make
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from serving.worker.encoder import Encoder
from tests.serving.conftest import ROOT, MakeArchive, entry, expected, picture, promote, unpacked

N = 30
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty images in two folders, one of them cut short, one no image, and a text beside them."""
    folder = tmp_path / "photos"
    for i in range(N):
        path = folder / ("a" if i < 20 else "b/ü") / f"{i:03d}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes({7: picture(7)[0][:-30], 25: b"words"}.get(i, picture(i)[0]))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model("digits-encoder", "simclr", "3", tmp_path / "encoder.mar", "abc")


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    (tmp_path / "unpacked").mkdir()
    return Direct(Encoder(unpacked(tmp_path / "unpacked"), threads=2))


def test_every_image_has_a_row_with_its_vector_or_its_reason(
    photos: Path, model: Model, direct: Direct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "PART", 8)
    monkeypatch.setattr(embed, "TOGETHER", 3)
    out = tmp_path / "vectors.parquet"
    said = make(photos, out, model, direct)
    assert "28 embeddings by digits-encoder, version 3; 2 images of no use; 1 other files left out, no .bmp" in said
    table = pq.read_table(out)
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [f"{'a' if i < 20 else 'b/ü'}/{i:03d}.PNG" for i in range(N)]
    for i, row in enumerate(rows):
        if i in (7, 25):
            assert row["embedding"] is None
            assert row["error"].startswith("This image is of no use")
        else:
            np.testing.assert_allclose(row["embedding"], expected(picture(i)[1]), rtol=1e-4, atol=1e-5)
            assert row["error"] is None
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (about["model"], about["version"], about["sha256"]) == ("digits-encoder", "3", "abc")
    assert [path.name for path in tmp_path.glob("vectors*")] == ["vectors.parquet"]


def test_the_endpoint_gives_the_same_table(
    photos: Path, model: Model, direct: Direct, second: Runtime, tmp_path: Path
) -> None:
    make(photos, tmp_path / "direct.parquet", model, direct)
    make(photos, tmp_path / "endpoint.parquet", model, Endpoint(Client.of(second), "digits-encoder"))
    ours, theirs = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("direct", "endpoint"))
    for a, b in zip(ours, theirs, strict=True):
        assert (a["path"], a["error"] is None) == (b["path"], b["error"] is None)
        if a["error"] is None:
            np.testing.assert_allclose(a["embedding"], b["embedding"], rtol=1e-6)


class Counting:
    """Direct, which counts what it is asked for, and stops in the middle."""

    def __init__(self, direct: Direct, stop_after: int = 10**9) -> None:
        self.direct, self.left, self.asked = direct, stop_after, 0

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]:
        for found in self.direct(files):
            if not self.left:
                raise KeyboardInterrupt
            self.left, self.asked = self.left - 1, self.asked + 1
            yield found


@pytest.fixture
def out(photos: Path, model: Model, direct: Direct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of a run that was stopped after two parts of eight images and three more."""
    monkeypatch.setattr(embed, "PART", 8)
    out = tmp_path / "vectors.parquet"
    with pytest.raises(KeyboardInterrupt):
        make(photos, out, model, Counting(direct, stop_after=19))
    assert not out.exists()
    return out


def test_a_stopped_run_goes_on_and_a_finished_one_does_nothing(
    photos: Path, model: Model, direct: Direct, out: Path
) -> None:
    make(photos, out, model, again := Counting(direct))
    assert again.asked == N - 16  # two parts were whole
    assert make(photos, out, model, idle := Counting(direct)).endswith("is up to date: 30 images")
    assert idle.asked == 0
    (photos / "a" / "000.PNG").write_bytes(picture(99)[0])
    make(photos, out, model, Counting(direct))
    np.testing.assert_allclose(pq.read_table(out)["embedding"][0].as_py(), expected(picture(99)[1]), rtol=1e-5)


def test_parts_of_another_encoder_are_not_taken_over(photos: Path, model: Model, direct: Direct, out: Path) -> None:
    other = Model(model.name, model.method, "4", model.archive, "def")
    make(photos, out, other, all_of_it := Counting(direct))
    assert all_of_it.asked == N


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_images_is_one_sentence(name: str, model: Model, direct: Direct, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServingError, match=r"absent cannot be read|empty holds no image"):
        make(tmp_path / name, tmp_path / "out.parquet", model, direct)


def start(*arguments: object, cwd: Path, **more: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "serving.embed", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | more
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=-1, stderr=-1, text=True)


def test_the_command_embeds_by_what_is_promoted(photos: Path, make_archive: MakeArchive, tmp_path: Path) -> None:
    promote(tmp_path, entry("digits-encoder", make_archive()))
    out, err = (running := start(photos, "--out", "v.parquet", cwd=tmp_path)).communicate()
    assert running.returncode == 0, err
    assert out.startswith("v.parquet: 28 embeddings by digits-encoder, version 3; 2 images of no use")
    assert err == "embed 30/30 images\n"
    out, err = (running := start(photos, "--out", "v.parquet", "--model", "x", cwd=tmp_path)).communicate()
    assert (running.returncode, out, err) == (1, "", "--model is x; promoted are digits-encoder.\n")
    out, err = (running := start(photos, "--out", "none/v.parquet", cwd=tmp_path / "photos")).communicate()
    assert running.returncode == 1
    assert err.count("\n") == 1


def test_ctrl_c_is_no_traceback(make_archive: MakeArchive, tmp_path: Path) -> None:
    promote(tmp_path, entry("digits-encoder", make_archive()))
    (first := tmp_path / "many" / "0.png").parent.mkdir()
    first.write_bytes(picture(0)[0])
    for i in range(1, 5 * embed.PART):
        os.link(first, first.with_name(f"{i}.png"))
    with (running := start("many", "--out", "v.parquet", cwd=tmp_path)):
        assert running.stderr is not None
        assert running.stderr.readline() == "embed 4,096/20,480 images\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    assert (running.returncode, out) == (130, "")
    assert err.strip().splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in err
    assert json.loads((tmp_path / "artifacts/promoted.json").read_text())["champion"] == "simclr"


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
    circle = "This links to a folder that it is in, which was not read again."
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
    assert (found[r"\xfe.png"] or "").startswith(f"{folder}/\\xfe.png: This image is of no use")
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
    ("place", "said"),
    [
        ("words.parquet", r"is there and is not a table of this command\. Name another file\.$"),
        ("others.parquet", r"is there and is not a table of this command\. Name another file\.$"),
        ("pipe", r"is there and is not a table of this command"),
        ("folder", r"which is a folder\. Name a file in it: .*/folder/vectors\.parquet\.$"),
        ("none/v.parquet", r"but there is no folder .*/none\. Make that folder first\.$"),
        ("words.parquet/v.parquet", r"but there is no folder .*/words\.parquet\."),
        (
            "kept.parquet",
            r"kept\.parquet\.parts is for parts of the table, but holds mine\.txt\. Name another --out\.$",
        ),
    ],
)
def test_a_place_that_is_none_for_a_table_is_one_sentence_and_stays_as_it_was(
    photos: Path, model: Model, direct: Direct, tmp_path: Path, place: str, said: str
) -> None:
    (tmp_path / "words.parquet").write_text("no table")
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "others.parquet")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "kept.parquet.parts").mkdir()
    (tmp_path / "kept.parquet.parts" / "mine.txt").write_text("mine")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(ServingError, match=said):
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
    for out, status, said in (
        ("v.parquet", 1, "v.parquet.parts cannot be written: the file system is read-only. Run from a copy"),
        ("../v.parquet", 0, ""),
    ):
        command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "serving.embed"]
        done = subprocess.run([*command, str(photos), "--out", out], cwd=checkout, check=False, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)  # fmt: skip
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
        assert said in done.stderr
    assert pq.read_table(tmp_path / "v.parquet").num_rows == N
