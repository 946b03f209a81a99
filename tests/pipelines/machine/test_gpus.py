"""A GPU belongs to one run at a time, whoever's it is and whatever number it has; torch.cuda is replaced."""

import io
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
import torch

from pipelines.machine import distributed, gpus, ranks
from pipelines.project.stage import StageError


@pytest.fixture(autouse=True)
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    monkeypatch.setattr(gpus, "POLL", 0.01)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    visible(monkeypatch, "a", "b")


def visible(monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """As CUDA_VISIBLE_DEVICES has it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=uuids[i]))


def test_two_runs_have_two_gpus() -> None:
    with gpus.device() as first, gpus.device() as second:
        assert (first, second) == (torch.device("cuda", 0), torch.device("cuda", 1))


def test_a_gpu_is_known_by_its_uuid_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpus.device():  # number 0 is "a"
        visible(monkeypatch, "b")
        with gpus.device() as other:
            assert other == torch.device("cuda", 0)
        visible(monkeypatch, "b", "a")
        with gpus.only(0), pytest.raises(StageError), gpus.only(1):
            pass


class Ear(io.StringIO):
    """In the place of stderr: hands over what another thread writes."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: queue.Queue[str] = queue.Queue()

    def write(self, text: str) -> int:
        self.heard.put(text)
        return len(text)

    def hear(self) -> str:
        """The next line. Raises queue.Empty when none comes."""
        line = ""
        while not line.endswith("\n"):
            line += self.heard.get(timeout=60)
        return line


def test_a_wait_is_said_and_ends_with_the_first_gpu_that_is_free() -> None:
    found: list[torch.device] = []

    def wait() -> None:
        with gpus.device() as device:
            found.append(device)

    with gpus.device(), gpus.device() as second, redirect_stderr(ear := Ear()):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert ear.hear() == "Other runs hold every GPU (2); waiting for the first to become free.\n"
        assert not found
    waiting.join(60)
    assert ear.heard.empty()
    assert found == [torch.device("cuda", 0)]
    assert second == torch.device("cuda", 1)


def test_ranks_that_wait_say_for_which_gpu() -> None:
    done = threading.Event()

    def wait() -> None:
        with gpus.first(2):
            done.set()

    with gpus.device(), redirect_stderr(ear := Ear()):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert ear.hear() == "Another run holds GPU 0; waiting for it to finish.\n"
        assert not done.is_set()
    assert done.wait(60)
    waiting.join(60)


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(
        StageError,
        match=r"^Parameter pretrain\.processes is 3\. Allowed: 1 to 2, the GPUs of this machine\. Edit params\.yaml\.$",
    ):
        gpus.first(3).__enter__()
    with pytest.raises(StageError, match=r"^LOCAL_RANK is 2, and this machine has 2 GPUs\."):
        gpus.only(2).__enter__()


@contextmanager
def as_user(user: int) -> Iterator[None]:
    """As somebody else, for the checks of the file system."""
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_takes_turns_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)  # as /tmp is
        monkeypatch.setattr(gpus, "LOCKS", Path(folder))
        before = os.umask(0o077)
        try:
            with gpus.device():
                pass
            with as_user(65534), gpus.device() as theirs:
                assert theirs == torch.device("cuda", 0)
        finally:
            os.umask(before)


def rank(monkeypatch: pytest.MonkeyPatch, **more: str) -> AbstractContextManager[torch.device]:
    for key, value in (dict.fromkeys(ranks.RANK, "0") | more).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend: None)
    return distributed.joined()


def test_a_rank_of_torchrun_locks_its_gpu_or_says_that_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    with rank(monkeypatch) as device:
        assert device == torch.device("cuda", 0)
        with pytest.raises(StageError, match=r"^Another run holds GPU 0 of .+ CUDA_VISIBLE_DEVICES"):
            distributed.joined().__enter__()
        with gpus.device() as other:
            assert other == torch.device("cuda", 1)


def test_a_rank_that_we_launched_leaves_the_locks_to_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpus.first(1), rank(monkeypatch, **{ranks.LAUNCHED: "1"}) as device:
        assert device == torch.device("cuda", 0)
