"""A folder becomes a table: every image a row, the same vectors either way, and a stopped run goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving import embed
from serving.client import Client
from serving.embed import Direct, Endpoint, make
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from tests.serving.bulk.embedding import Counting, N, start
from tests.serving.conftest import MakeArchive, entry, expected, picture, promote


def test_every_image_has_a_row_with_its_vector_or_its_reason(
    photos: Path, model: Model, direct: Direct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "PART", 8)
    monkeypatch.setattr(embed, "TOGETHER", 3)
    out = tmp_path / "vectors.parquet"
    summary = make(photos, out, model, direct)
    assert "; 2 images that cannot be used; 1 other files skipped (no .bmp" in summary
    table = pq.read_table(out)
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [f"{'a' if i < 20 else 'b/ü'}/{i:03d}.PNG" for i in range(N)]
    for i, row in enumerate(rows):
        if i in (7, 25):
            assert row["embedding"] is None
            assert row["error"].startswith("This image cannot be used")
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


def test_the_command_embeds_by_what_is_promoted(photos: Path, make_archive: MakeArchive, tmp_path: Path) -> None:
    promote(tmp_path, entry("digits-encoder", make_archive()))
    out, err = (running := start(photos, "--out", "v.parquet", cwd=tmp_path)).communicate()
    assert running.returncode == 0, err
    assert out.startswith("v.parquet: 28 embeddings by digits-encoder, version 3; 2 images that cannot be used")
    assert err == "embed 30/30 images\n"
    out, err = (running := start(photos, "--out", "v.parquet", "--model", "x", cwd=tmp_path)).communicate()
    assert (running.returncode, out, err) == (1, "", "Option --model is x. Allowed: digits-encoder.\n")
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
    assert err.strip().splitlines()[-1] == "Stopped. Run the same command again to resume."
    assert "Traceback" not in err
    assert json.loads((tmp_path / "artifacts/promoted.json").read_text())["champion"] == "simclr"


def test_parts_are_joined_without_a_thread_that_could_outlive_python(tmp_path: Path) -> None:
    script = """
import sys
from os import listdir
from pathlib import Path
import numpy as np
from serving.bulk.table import join, write
part, out = Path(sys.argv[1], "000000.parquet"), Path(sys.argv[1], "vectors.parquet")
write(part, ["a", "b"], [np.zeros(4, np.float32), "no image"], {"key": "k"})
before = len(listdir("/proc/self/task"))
print(join([part], out), len(listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], text=True, check=True, capture_output=True)
    assert done.stdout.split() == ["1", "0"]  # images without an embedding, new threads
