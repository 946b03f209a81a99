"""A local server in the place of the public ones, with its faults."""

import hashlib
import io
import tarfile
from dataclasses import dataclass, field, replace

import pytest

from data.sources import SOURCES


@dataclass
class Server:
    """Files over HTTP with Range; each answer is cut after `cuts` bytes, one entry an answer."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    sent: int = 0
    asked: list[str | None] = field(default_factory=list)


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
