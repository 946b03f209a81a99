"""The bundled set against scikit-learn; the public ones from a local server, with its faults."""

import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data import DataError
from data.download import download
from data.sources import SOURCES, fetch, main, members

RNG = np.random.default_rng(0)


@dataclass
class Server:
    """Files over HTTP with Range; each answer is cut after `cuts` bytes, one entry an answer."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    sent: int = 0
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"] if state.ranges else None
            state.asked.append(self.headers["Range"])
            data = state.files.get(self.path.lstrip("/"))
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if data is None or start >= len(data):
                self.send_error(404 if data is None else 416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Encoding", "x-gzip")  # as some servers say of an archive
            self.end_headers()
            body = data[start:][: state.cuts.pop(0) if state.cuts else None]
            state.sent += len(body)
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("ENCODER_FOUNDRY_MIRROR", f"{state.url}/")
        yield state
        httpd.shutdown()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def offer(server: Server, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an archive on the server in the place of the official one."""
    server.files[SOURCES[name].url.rsplit("/", 1)[1]] = data
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], md5=md5(data)))


def images(folder: Path) -> dict[str, np.ndarray]:
    return {p.relative_to(folder).as_posix(): np.asarray(Image.open(p)) for p in sorted(folder.rglob("*.png"))}


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    assert main(["digits", "--out", str(tmp_path / "digits")]) == 0
    found, bunch = images(tmp_path / "digits"), load_digits()
    assert len(found) == 1797
    for number, (values, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        image = found[f"{label}/{number:04d}.png"]
        assert image.dtype == np.uint8
        assert image.tolist() == [[round(value * 255 / 16) for value in line] for line in values]


def test_writers_of_the_test_digits_are_unseen(tmp_path: Path) -> None:
    assert main(["digits", "--out", str(tmp_path / "all")]) == 0
    assert main(["digits-writers", "--out", str(tmp_path / "writers")]) == 0
    found = images(tmp_path / "writers")
    numbers = {
        split: sorted(int(Path(n).stem) for n in found if n.startswith(split)) for split in ("train", "val", "test")
    }
    assert [*numbers["train"], *numbers["val"], *numbers["test"]] == list(range(1797))  # the order of the file
    assert [len(n) for n in numbers.values()] == [1170, 130, 497]
    together = {name.partition("/")[2]: image for name, image in found.items()}
    assert together.keys() == (everyone := images(tmp_path / "all")).keys()
    assert all(np.array_equal(together[name], image) for name, image in everyone.items())


def test_cifar10_records_become_images(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = RNG.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    record = [bytes([label]) + image.tobytes() for label, image in zip((0, 9, 9), planes, strict=True)]
    folder = "cifar-10-batches-bin"
    files = {"batches.meta.txt": b"", "data_batch_1.bin": record[0], "data_batch_2.bin": record[1]}
    files = {f"{folder}/{name}": data for name, data in (files | {"test_batch.bin": record[2]}).items()}
    offer(server, "cifar10", pack(files), monkeypatch)
    fetch("cifar10", tmp_path / "cifar10")
    found = images(tmp_path / "cifar10")
    assert list(found) == ["test/truck/00000.png", "train/airplane/00000.png", "train/truck/00001.png"]
    for path, image in zip(found.values(), planes[[2, 0, 1]], strict=True):
        np.testing.assert_array_equal(path, image.transpose(1, 2, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]


def test_stl10_records_are_stored_columns_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = RNG.integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    stored = [bytes(picture.transpose(2, 1, 0).tobytes()) for picture in pictures]
    files = {
        "test_X.bin": stored[0],
        "test_y.bin": b"\x0a",
        "train_X.bin": stored[1] + stored[2],
        "train_y.bin": b"\x01\x02",
        "unlabeled_X.bin": stored[3],
        "class_names.txt": b"airplane\n",
    }
    offer(server, "stl10", pack({f"stl10_binary/{n}": data for n, data in files.items()}), monkeypatch)
    fetch("stl10", tmp_path / "stl10")
    found = images(tmp_path / "stl10")
    assert list(found) == [
        "test/truck/000000.png",
        "train/airplane/000000.png",
        "train/bird/000001.png",
        "unlabelled/000000.png",
    ]
    np.testing.assert_array_equal(np.stack(list(found.values())), pictures)
    assert sorted(path.name for path in (tmp_path / "stl10").iterdir() if path.is_dir()) == [
        "test",
        "train",
        "unlabelled",
    ]


def test_imagenette_keeps_its_own_jpegs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "imagenette2-160/train/n03028079/a.JPEG": b"jpeg 1",
        "imagenette2-160/val/n02102040/b.JPEG": b"jpeg 2",
        "imagenette2-160/val/n02102040/._b.JPEG": b"of a Mac",
        "imagenette2-160/noisy_imagenette.csv": b"path",
    }
    offer(server, "imagenette", pack(files), monkeypatch)
    fetch("imagenette", tmp_path / "set")
    found = {p.relative_to(tmp_path / "set").as_posix(): p.read_bytes() for p in tmp_path.rglob("*.JPEG")}
    assert found == {"train/church/a.JPEG": b"jpeg 1", "val/English springer/b.JPEG": b"jpeg 2"}


def test_a_dropped_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    data = server.files["file.tgz"] = RNG.bytes(300_000)
    server.cuts = [100_000, 50_000]
    download(f"{server.url}/file.tgz", tmp_path / "file", md5(data))
    assert (tmp_path / "file").read_bytes() == data
    assert server.sent == len(data)
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_resumes_an_earlier_one(server: Server, tmp_path: Path) -> None:
    data = server.files["file.tgz"] = RNG.bytes(300_000)
    server.cuts = [100_000, 0]
    with pytest.raises(DataError, match="no connection"):  # the second answer brought nothing
        download(f"{server.url}/file.tgz", tmp_path / "file", md5(data))
    assert not (tmp_path / "file").exists()
    download(f"{server.url}/file.tgz", tmp_path / "file", md5(data))
    assert (tmp_path / "file").read_bytes() == data
    assert server.sent == len(data)


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    data = server.files["file.tgz"] = RNG.bytes(100_000)
    server.ranges = False
    (tmp_path / "file.part").write_bytes(data[:40_000])
    download(f"{server.url}/file.tgz", tmp_path / "file", md5(data))
    assert (tmp_path / "file").read_bytes() == data
    assert server.sent == len(data)


def test_a_download_that_was_complete_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    data = server.files["file.tgz"] = RNG.bytes(1000)
    (tmp_path / "file.part").write_bytes(data)
    download(f"{server.url}/file.tgz", tmp_path / "file", md5(data))
    assert server.sent == 0


def test_other_bytes_than_the_published_are_removed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["cifar-10-binary.tar.gz"] = b"something else"
    assert main(["cifar10", "--out", str(tmp_path / "cifar10")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert f"has MD5 {md5(b'something else')}, published is c32a1d4ab5d03f1284b67883e8d87530" in said
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_one_sentence(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stl10", "--out", str(tmp_path / "stl10")]) == 1
    assert capsys.readouterr().err == (
        f"error: {server.url}/stl10_binary.tar.gz cannot be fetched (the server answered 404 Not Found); "
        f"check the network, run again to resume, or name a mirror in ENCODER_FOUNDRY_MIRROR\n"
    )
    assert not (tmp_path / "stl10").exists()


def test_no_server_is_one_sentence(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODER_FOUNDRY_MIRROR", "http://127.0.0.1:1")  # nobody listens there
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/.* cannot be fetched \(no connection\)"):
        fetch("cifar10", tmp_path / "cifar10")


def test_a_silent_server_is_given_up(tmp_path: Path, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file.tgz"
        with pytest.raises(DataError, match=r"no answer in time"):
            download(url, tmp_path / "file", "", timeout=(0.1, 0.1))


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside.bin"),
        tarfile.TarInfo("set/../../outside.bin"),
        tarfile.TarInfo("/tmp/outside.bin"),
        link("set/link.bin", tarfile.SYMTYPE),
        link("set/link.bin", tarfile.LNKTYPE),
        link("set/pipe.bin", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name} {member.type.decode()}",
)
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(DataError, match="unsafe member"):
        list(members(tmp_path / "set.tgz"))


@pytest.mark.parametrize(
    "data",
    [b"not gzip", gzip.compress(b"not tar" * 200), pack({"a.bin": b"1" * 9})[:60]],
    ids=["not gzip", "not tar", "cut short"],  # gzip's bytes hold the time: every process would give another name
)
def test_an_archive_that_cannot_be_read_is_one_sentence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    offer(server, "cifar10", data, monkeypatch)
    with pytest.raises(DataError, match=r"is not the archive it should be .* remove it, run again"):
        fetch("cifar10", tmp_path / "cifar10")
    assert not (tmp_path / "cifar10").exists()


def test_a_record_cut_short_is_noticed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, "cifar10", pack({"set/data_batch_1.bin": b"\0" * 3072}), monkeypatch)
    with pytest.raises(DataError, match=r"set/data_batch_1\.bin ends within a record"):
        fetch("cifar10", tmp_path / "cifar10")
