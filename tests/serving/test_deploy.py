"""Deploying onto a real TorchServe: checked, idempotent, rolled in and back without a gap."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import requests

from serving import ServingError
from serving.client import Client
from serving.deploy import deploy, rollback, status
from serving.host.runtime import Runtime
from serving.rollout import served_file
from serving.torchserve.management import Management
from serving.torchserve.process import Server
from tests.serving.conftest import ROOT, MakeArchive, entry, expected, picture, promote


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Its own server: what is promoted no more goes from it."""
    with Server(Runtime(tmp_path_factory.mktemp("deploy") / "run"), free_ports=True) as started:
        yield started.runtime


def version(server: Runtime, name: str) -> str | None:
    """The one that answers to the bare name, as TorchServe says."""
    return Management(server).default(name)


def check(server: Runtime, name: str, factor: int) -> None:
    png, pixels = picture(1)
    np.testing.assert_allclose(Client.of(server).embed(name, png), expected(pixels, factor), rtol=1e-4, atol=1e-5)


@contextmanager
def load(server: Runtime, name: str, factors: set[int]) -> Iterator[None]:
    """Two clients that ask without a pause: none is ever refused, none gets a vector but of these versions."""
    png, pixels = picture(5)
    vectors = [expected(pixels, factor) for factor in factors]
    wrong: list[object] = []
    answers: list[bool] = []
    end = Event()

    def ask() -> None:
        client = Client.of(server)
        while not end.is_set():
            try:
                vector = client.embed(name, png)
            except ServingError as error:
                wrong.append(error)
                continue
            if not any(np.allclose(vector, each, rtol=1e-4, atol=1e-5) for each in vectors):
                wrong.append(vector)
            answers.append(True)

    asking = [Thread(target=ask) for _ in range(2)]
    for each in asking:
        each.start()
    try:
        yield
    finally:
        end.set()
        for each in asking:
            each.join()
    assert wrong == []
    assert answers


def test_versions_roll_in_and_back_under_load_and_one_old_version_is_kept(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    deploy(promote(tmp_path, entry("rolled", make_archive("1"), "1")), server)
    with load(server, "rolled", {1, 2, 3}):
        deploy(promote(tmp_path, entry("rolled", make_archive("2"), "2")), server)
        assert version(server, "rolled") == "2"
        check(server, "rolled/1", 1)
        rollback(server)
        assert version(server, "rolled") == "1"
        rollback(server)  # and forward again
        assert version(server, "rolled") == "2"
        deploy(promote(tmp_path, entry("rolled", make_archive("3"), "3")), server)
    check(server, "rolled", 3)
    assert set(Management(server).versions("rolled")) == {"2", "3"}
    assert len(list(server.models.iterdir())) == len({version.file for _, version in served_file.read(server).all()})
    assert status(server, tmp_path / "absent").splitlines()[-1] == (
        "rolled: version 3, ready; previous: version 2; promoted: nothing"
    )


def test_the_same_again_changes_nothing_and_a_name_that_is_promoted_no_more_goes_after_one_more_change(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive, capsys: pytest.CaptureFixture[str]
) -> None:
    mar, management = make_archive(), Management(server)
    deploy(promote(tmp_path, entry("leaves", mar)), server)
    worker = management.versions("leaves")["3"]["workers"][0]["pid"]
    capsys.readouterr()
    deploy(promote(tmp_path, entry("leaves", mar)), server)
    assert capsys.readouterr().err == "leaves: version 3 (simclr) is served already.\n"
    deploy(promote(tmp_path, entry("comes", mar)), server)
    assert management.versions("leaves")["3"]["workers"][0]["pid"] == worker  # for a rollback
    deploy(promote(tmp_path, entry("comes", mar), entry("later", mar)), server)
    assert set(management.names()) == {"comes", "later"}


def test_the_same_version_with_other_bytes_stands_beside_it_under_a_label_of_its_own(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    other = make_archive("3", note="other bytes, same version")
    deploy(promote(tmp_path, entry("changed", make_archive())), server)
    with load(server, "changed", {3}):
        deploy(promote(tmp_path, entry("changed", other)), server)
    label = f"3-{entry('changed', other)['sha256'][:8]}"
    assert set(Management(server).versions("changed")) == {"3", label}
    assert version(server, "changed") == label


def test_an_archive_that_does_not_serve_is_a_sentence_and_all_goes_on_as_before(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    deploy(promote(tmp_path, entry("sound", make_archive("1"), "1")), server)
    for bad, deadline, reason in (
        (make_archive("2", preprocess="{}"), 90, "Its worker ended while it loaded the archive"),
        (make_archive("2", of="1"), 90, "Its answers to the golden images differ from those of training by "),
        (make_archive("2"), 0.1, "Its worker did not start within 0.1 s."),
    ):
        new = entry("new", make_archive())
        with (
            load(server, "sound", {1}),
            pytest.raises(ServingError, match=r"^The model sound cannot be served\. ") as error,
        ):
            deploy(promote(tmp_path, entry("sound", bad, "2"), new), server, deadline)
        assert str(error.value).startswith(f"The model sound cannot be served. {reason}")
        assert str(error.value).endswith(f" The log is {server.log}.")
        assert list(Management(server).versions("sound")) == ["1"]
        assert "new" not in Management(server).names()
    deploy(promote(tmp_path, entry("sound", make_archive("2"), "2")), server)
    check(server, "sound", 2)


def test_a_wrong_digest_or_a_missing_archive_stops_everything_before_it_begins(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    good = entry("untouched", make_archive())
    for wrong, reason in (({"sha256": "0" * 64}, "not the promoted file"), ({"archive": "absent.mar"}, "is missing")):
        path = promote(tmp_path, good, entry("bad", make_archive(), **wrong))
        with pytest.raises(ServingError, match=f"^The model bad cannot be served from .*The archive .*{reason}"):
            deploy(path, server)
    assert "untouched" not in Management(server).names()


def test_at_a_start_a_bad_archive_keeps_the_others_from_nothing(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    path = promote(
        tmp_path,
        entry("stranger", make_archive(), sha256="0" * 64),
        entry("fine", make_archive()),
        entry("silent", make_archive("2", preprocess="{}"), "2"),
    )
    stranger, silent = deploy(path, server, partly=True)
    assert stranger.startswith("The model stranger cannot be served from ")
    assert silent.startswith("The model silent cannot be served. Its worker ended while it loaded the archive")
    check(server, "fine", 3)
    assert list(served_file.read(server).now) == ["fine"]
    assert "silent" not in Management(server).names()
    assert status(server, path).splitlines()[-2:] == [
        "stranger: not served; promoted: version 3",
        "silent: not served; promoted: version 2",
    ]
    with pytest.raises(ServingError, match=r"^The model stranger cannot be served from "):
        deploy(promote(tmp_path, entry("stranger", make_archive(), sha256="0" * 64)), server, partly=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"dataset": "a", "champion": "b", "models": []}',
        '{"dataset": "", "champion": "", "models": [{}]}',
    ],
)
def test_a_promoted_file_of_another_kind_is_a_sentence(server: Runtime, tmp_path: Path, text: str) -> None:
    path = promote(tmp_path)
    path.write_text(text)
    with pytest.raises(ServingError, match="is not what the pipeline writes"):
        deploy(path, server)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "serving.deploy", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_deploys_says_how_things_stand_and_rolls_back(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    for number in ("1", "2"):
        path = promote(tmp_path, entry("by-hand", make_archive(number), number))
        done = command("--run", server.folder, "--promoted", path)
        assert done.returncode == 0, done.stderr
    assert command("--run", server.folder, "--rollback").returncode == 0
    printed = command("--run", server.folder, "--promoted", path, "--status").stdout.splitlines()
    assert "by-hand: version 1, ready; previous: version 2; promoted: version 2" in printed
    refused = command("--run", server.folder, "--promoted", promote(tmp_path, entry("bad", path)))
    assert refused.returncode == 1
    assert refused.stderr.startswith("The model bad cannot be served from ")
    nobody = command("--run", tmp_path, "--rollback")
    assert nobody.stderr == f"No server runs in {tmp_path}. Start one with `make serve`.\n"


def test_new_tokens_without_a_restart_and_who_reads_the_folder_does_not_notice(server: Runtime) -> None:
    deployer, holder = Client.of(server), Client(server.address("inference"), server.token("inference"))
    old = {api: server.token(api) for api in ("inference", "management")}
    assert command("--run", server.folder, "--rotate").returncode == 0
    assert server.keys.stat().st_mode & 0o777 == 0o600
    name = Management(server).names()[0]
    deployer.embed(name, picture(1)[0])
    with pytest.raises(ServingError, match="status 403: Token Authorization failed"):
        holder.embed(name, picture(1)[0])
    url = f"{server.address('management')}/models"
    answer = requests.get(url, headers={"Authorization": f"Bearer {old['management']}"}, timeout=20)
    assert answer.status_code == 403
