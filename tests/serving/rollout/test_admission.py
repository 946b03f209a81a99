"""Which archives come into the model store: none that differs from ours in one member."""

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serving import ServingError
from serving.client import Client
from serving.deploy import deploy
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from serving.rollout import admission
from tests.serving.conftest import MakeArchive, entry, expected, picture, promote

Members = dict[str, bytes]


def model(path: Path, **changed: str) -> Model:
    given = entry("digits", path, **changed)
    return Model(**given | {"archive": path})


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as mar:
        return {name: mar.read(name) for name in mar.namelist()}


def pack(path: Path, content: Members) -> Path:
    with zipfile.ZipFile(path, "w") as mar:
        for name, data in content.items():
            mar.writestr(name, data)
    return path


def test_what_is_admitted_is_a_new_file_with_the_same_members_called_by_its_digest(
    make_archive: MakeArchive, tmp_path: Path
) -> None:
    mar = make_archive()
    admitted = admission.admit(model(mar), "3-again", tmp_path)
    assert admitted.name == f"{admission.sha256(admitted)}.mar"
    assert list(tmp_path.iterdir()) == [admitted]
    came, went = members(mar), members(admitted)
    manifest = json.loads(went.pop(admission.MANIFEST))
    assert came.pop(admission.MANIFEST)
    assert went == came
    assert manifest["model"]["modelVersion"] == "3-again"
    assert admission.admit(model(mar), "3-again", tmp_path) == admitted


CHANGES: dict[str, tuple[Callable[[Members], Members], str]] = {
    "another handler": (lambda m: m | {"handler.py": b"import os"}, "The archive holds another version of handler.py"),
    "another decoder": (
        lambda m: m | {"data/decoding/decode.py": b""},
        "The archive holds another version of data/decoding/decode.py",
    ),
    "other settings": (lambda m: m | {"model-config.yaml": b"useVenv: true"}, "another version of model-config.yaml"),
    "more code": (lambda m: m | {"torch.py": b"evil"}, "The archive holds torch.py, which the pipeline does not pack"),
    "a requirements file": (lambda m: m | {"requirements.txt": b"evil"}, "The archive holds requirements.txt"),
    "a parent path": (lambda m: m | {"../evil.py": b""}, "../evil.py, which leads out of its folder"),
    "an absolute path": (lambda m: m | {"/etc/evil": b""}, "/etc/evil, which leads out of its folder"),
    "no network": (lambda m: {k: v for k, v in m.items() if k != "encoder.onnx"}, "The archive lacks encoder.onnx"),
    "no golden images": (lambda m: {k: v for k, v in m.items() if k != "golden.npz"}, "The archive lacks golden.npz"),
    "a huge manifest": (lambda m: m | {admission.MANIFEST: bytes(2 << 20)}, "with 2,097,152 bytes. Allowed: 1,048,576"),
    "no manifest": (lambda m: m | {admission.MANIFEST: b"{}"}, "The archive is not complete"),
    "another version": (
        lambda m: m | {admission.MANIFEST: m[admission.MANIFEST].replace(b'"3"', b'"4"')},
        "The archive is version 4 instead of 3",
    ),
}


def refused(server: Runtime, path: Path, folder: Path) -> str:
    """Why this archive does not come onto the running server, which goes on as it was."""
    before = sorted(server.models.iterdir())
    with pytest.raises(ServingError, match=r"^The model digits-encoder cannot be served from .*\.$") as error:
        deploy(promote(folder, entry("digits-encoder", path)), server)
    assert sorted(server.models.iterdir()) == before
    png, pixels = picture(1)
    np.testing.assert_allclose(Client.of(server).embed("digits-encoder", png), expected(pixels), rtol=1e-5)
    return str(error.value)


@pytest.mark.parametrize("case", CHANGES)
def test_an_archive_that_differs_from_ours_is_refused(
    case: str, server: Runtime, make_archive: MakeArchive, tmp_path: Path
) -> None:
    change, reason = CHANGES[case]
    assert reason in refused(server, pack(tmp_path / "changed.mar", change(members(make_archive()))), tmp_path)


def test_a_link_a_doubled_member_and_damage_are_refused(
    server: Runtime, make_archive: MakeArchive, tmp_path: Path
) -> None:
    whole = members(make_archive())

    link = pack(tmp_path / "link.mar", {k: v for k, v in whole.items() if k != "golden.npz"})
    with zipfile.ZipFile(link, "a") as mar:
        info = zipfile.ZipInfo("golden.npz")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        mar.writestr(info, "/etc/passwd")
    twice = pack(tmp_path / "twice.mar", whole)
    with zipfile.ZipFile(twice, "a") as mar, pytest.warns(UserWarning, match="Duplicate name"):
        mar.writestr("encoder.onnx", b"another")
    sound = make_archive().read_bytes()
    cut, flipped, words = (tmp_path / f"{name}.mar" for name in ("cut", "flipped", "words"))
    cut.write_bytes(sound[: len(sound) // 2])
    start = sound.index(b"encoder.onnx") + 60
    flipped.write_bytes(sound[:start] + bytes([sound[start] ^ 1]) + sound[start + 1 :])
    words.write_bytes(b"no archive")

    for path, reason in (
        (link, "golden.npz, which is a link"),
        (twice, "The archive holds a file twice"),
        (cut, "The archive is not complete"),
        (flipped, "The archive is not complete"),
        (words, "The archive is not complete"),
    ):
        assert reason in refused(server, path, tmp_path)
