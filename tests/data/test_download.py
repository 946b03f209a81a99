"""Downloads go on where they broke, and what cannot be fetched is one sentence."""

import socket
from pathlib import Path

import numpy as np
import pytest

from data import DataError
from data.download import download
from data.sources import fetch, main
from tests.data.mirror import Server, md5

RNG = np.random.default_rng(0)


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
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("data.sources: The file ")
    assert f"has the MD5 {md5(b'something else')}, but c32a1d4ab5d03f1284b67883e8d87530 was published." in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_one_sentence(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stl10", "--out", str(tmp_path / "stl10")]) == 1
    assert capsys.readouterr().err == (
        f"data.sources: The download of {server.url}/stl10_binary.tar.gz failed (the server answered 404 Not Found). "
        "Check the network and run the same command again: it resumes. Or name a mirror in ENCODER_FOUNDRY_MIRROR.\n"
    )
    assert not (tmp_path / "stl10").exists()


def test_no_server_is_one_sentence(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODER_FOUNDRY_MIRROR", "http://127.0.0.1:1")  # nobody listens there
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/.* failed \(no connection\)"):
        fetch("cifar10", tmp_path / "cifar10")


def test_a_silent_server_is_given_up(tmp_path: Path, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file.tgz"
        with pytest.raises(DataError, match=r"no answer in time"):
            download(url, tmp_path / "file", "", timeout=(0.1, 0.1))
