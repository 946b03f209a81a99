"""Deploying onto a real TorchServe: checked, idempotent, rolled without a gap."""

from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import requests

from serving import ServingError
from serving.client import Client
from serving.deploy import deploy
from serving.runtime import Runtime
from tests.serving.conftest import MakeArchive, entry, expected, picture, promote


def describe(server: Runtime, name: str) -> dict[str, Any]:
    """What TorchServe itself says of a model."""
    headers = {"Authorization": f"Bearer {server.token('management')}"}
    url = f"{server.address('management')}/models/{name}/all"
    (model,) = requests.get(url, headers=headers, timeout=20).json()
    return dict(model)


def test_the_same_archive_again_keeps_its_worker(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive, capsys: pytest.CaptureFixture[str]
) -> None:
    path = promote(tmp_path, entry("again", make_archive()))
    deploy(path, server)
    first = describe(server, "again")
    deploy(path, server)
    assert describe(server, "again")["workers"][0]["pid"] == first["workers"][0]["pid"]
    assert capsys.readouterr().err.splitlines()[1] == "again: version 3 (simclr) was served already"


def test_a_new_version_replaces_the_old_one_without_losing_a_request(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    deploy(promote(tmp_path, entry("rolled", make_archive("1"), "1")), server)
    png, pixels = picture(5)
    answers: list[np.ndarray[Any, Any]] = []
    failures: list[Exception] = []
    end = Event()

    def ask() -> None:
        client = Client.of(server)
        while not end.is_set():
            try:
                answers.append(client.embed("rolled", png))
            except ServingError as error:
                failures.append(error)

    asking = Thread(target=ask)
    asking.start()
    try:
        deploy(promote(tmp_path, entry("rolled", make_archive("2"), "2")), server)
    finally:
        end.set()
        asking.join()
    assert failures == []
    np.testing.assert_allclose(answers[0], expected(pixels, 1), rtol=1e-4, atol=1e-5)
    latest = Client.of(server).embed("rolled", png)
    np.testing.assert_allclose(latest, expected(pixels, 2), rtol=1e-4, atol=1e-5)
    assert describe(server, "rolled")["modelVersion"] == "2"


def test_the_same_version_with_other_bytes_is_replaced(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    other = make_archive("3", note="other bytes, same version")
    deploy(promote(tmp_path, entry("changed", make_archive())), server)
    deploy(promote(tmp_path, entry("changed", other)), server)
    assert describe(server, "changed")["modelUrl"] == f"{entry('changed', other)['sha256']}.mar"
    Client.of(server).embed("changed", picture(1)[0])


def test_an_archive_that_cannot_load_is_a_sentence_and_the_old_version_goes_on(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    deploy(promote(tmp_path, entry("sound", make_archive("1"), "1")), server)
    broken = make_archive("2", preprocess="{}")
    with pytest.raises(ServingError, match=r"^sound cannot be served: .*torchserve\.log") as error:
        deploy(promote(tmp_path, entry("sound", broken, "2")), server)
    assert "\n" not in str(error.value)
    assert "The archive of sound cannot be loaded" in server.log.read_text()
    assert describe(server, "sound")["modelVersion"] == "1"
    Client.of(server).embed("sound", picture(1)[0])
    deploy(promote(tmp_path, entry("sound", make_archive("2"), "2")), server)
    assert describe(server, "sound")["modelVersion"] == "2"


def test_a_file_that_is_no_archive_is_a_sentence(server: Runtime, tmp_path: Path) -> None:
    rubbish = tmp_path / "encoder.mar"
    rubbish.write_text("no archive")
    with pytest.raises(ServingError, match=r"^rubbish cannot be served"):
        deploy(promote(tmp_path, entry("rubbish", rubbish)), server)


def test_a_wrong_digest_and_a_missing_archive_stop_everything_before_it_begins(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    good = entry("untouched", make_archive())
    for wrong, reason in (({"sha256": "0" * 64}, "not the file"), ({"archive": "absent.mar"}, "is missing")):
        path = promote(tmp_path, good, entry("bad", make_archive(), **wrong))
        with pytest.raises(ServingError, match=f"^bad cannot be served: .*{reason}"):
            deploy(path, server)
    with pytest.raises(ServingError, match="404"):
        Client.of(server).embed("untouched", picture(1)[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "", "champion": "", "models": [{}]}'])
def test_a_promoted_file_of_another_kind_is_a_sentence(server: Runtime, tmp_path: Path, text: str) -> None:
    path = promote(tmp_path)
    path.write_text(text)
    with pytest.raises(ServingError, match="is not what the pipeline writes"):
        deploy(path, server)
