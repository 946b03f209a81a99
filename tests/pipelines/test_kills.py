"""A save and a start killed, or met by a full disk, at every call that changes a folder: by strace, for real."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.saving.checkpoints import Checkpoints
from tests.pipelines.engine.checkpoints import IDENTITY, assert_loads, folder, saved
from tests.pipelines.small_project import ROOT, environment

pytestmark = pytest.mark.usefixtures("elsewhere")
FULL = r"its disk is full \([\d,.]+ MB free\)\. Free some space there, then run the same command again"
CHANGES = "/^(mkdir|open|creat|write|pwrite|fsync|fdatasync|rename|unlink|rmdir|ftruncate)"
VICTIM = """
import ctypes, os, signal, sys
from pipelines.project.stage import StageError
from tests.pipelines.engine import checkpoints as t

ctypes.CDLL(None).prctl(0x59616D61, -1)  # PR_SET_PTRACER, anyone
for line in sys.stdin:
    folder, action = line.split()
    child = os.fork()
    if not child:
        os.chdir(folder)
        save = t.saved(6, 9, last=False).save if action == "save" else None
        os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT), 2)
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            save(t.state(9)) if save else t.Checkpoints("mae", t.IDENTITY)
        except StageError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Victim:
    """Forks of one process, so that torch is imported once, each under a strace of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", VICTIM],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, action: str, folder: Path, *options: str) -> tuple[int, list[str]]:
        """Save or load in the folder; the exit code, and the calls as strace saw them."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{folder} {action}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        log = folder / "calls"
        with subprocess.Popen(
            ["strace", "-y", "-o", log, "-e", f"trace={CHANGES}", *options, "-p", str(pid)],
            stderr=subprocess.PIPE,
            text=True,
        ) as strace:
            assert strace.stderr
            attached = strace.stderr.readline()
            os.kill(pid, signal.SIGCONT)
            code = int(self.process.stdout.readline())
        if "attached" not in attached:
            pytest.skip(f"strace may not trace here: {attached.strip()}")
        return code, log.read_text().splitlines()


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    victim = Victim()
    yield victim
    victim.process.communicate()


def prepared(action: str) -> Path:
    """A folder in which the third checkpoint is about to be saved, or the newer of two is damaged."""
    checkpoints = saved(3, 6)
    if action == "load":
        os.truncate(folder(checkpoints, 6) / "state.pt", 99)
    place = Path("prepared").absolute()
    place.mkdir()
    Path(".scratch").rename(place / ".scratch")
    return place


def counted(calls: list[str]) -> list[tuple[str, int]]:
    """Every call that changed the project's files, as strace addresses it: the n-th of its name."""
    seen, points = Counter[str](), []
    for call in calls:
        name, opened, _ = call.partition("(")
        seen[name] += 1
        if opened and "/said>" not in call and " = -1 " not in call:
            points.append((name, seen[name]))
    return points


@pytest.mark.parametrize("action", ["save", "load"])
def test_killed_at_every_call_it_leaves_the_newest_whole_one(
    action: str, victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = prepared(action)
    shutil.copytree(start, "counting")
    code, calls = victim.do(action, tmp_path / "counting")
    assert code == 0
    points = counted(calls)
    looking, left = Checkpoints("mae", IDENTITY), set()
    for name, n in points:
        place = tmp_path / f"{name}-{n}"
        shutil.copytree(start, place)
        code, _ = victim.do(action, place, "-e", f"inject={name}:signal=KILL:when={n}")
        assert code == -signal.SIGKILL
        with monkeypatch.context() as here:
            here.chdir(place)
            names = sorted(folder.name for folder in looking.folder.glob("step-*"))
            whole = [name for name in names if not looking.fault(looking.folder / name)]
            assert action == "load" or whole == names
            newest = int(whole[-1].removeprefix("step-"))
            assert_loads(newest)
            left.add(newest)
            checkpoints = saved(9, 12)
            assert checkpoints.steps() == ["step-00000009", "step-00000012"]
            assert_loads(12)
    assert left == ({6, 9} if action == "save" else {3})
    print(f"{action}: killed at {len(points)} calls: {dict(Counter(name for name, _ in points))}")


@pytest.mark.parametrize("action", ["save", "load"])
def test_a_disk_that_fills_at_any_call_is_a_sentence_and_loses_nothing(
    action: str, victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = prepared(action)
    shutil.copytree(start, "counting")
    _, calls = victim.do(action, tmp_path / "counting")
    points = [(name, n) for name, n in counted(calls) if name.startswith(("mkdir", "write", "fsync", "rename"))]
    scratch = ".scratch/pretrain/mae"
    for name, n in points:
        place = tmp_path / f"{name}-{n}"
        shutil.copytree(start, place)
        code, _ = victim.do(action, place, "-e", f"inject={name}:error=ENOSPC:when={n}")
        assert code == 1
        newest = (9 if (place / scratch / "step-00000009").exists() else 6) if action == "save" else 3
        line = (place / "said").read_text().splitlines()[-1]
        if action == "save":
            assert re.fullmatch(
                rf"The checkpoint of step 9 cannot be written to {scratch}: {FULL}\. "
                rf"The checkpoint of step {newest} is kept\.",
                line,
            )
            assert not list((place / scratch).glob(".*"))
        else:
            assert re.fullmatch(rf"The folder {scratch} cannot be read and written: {FULL}\.", line)
        with monkeypatch.context() as here:
            here.chdir(place)
            assert_loads(newest)


def test_what_a_rename_makes_known_is_on_the_disk_before_and_the_rename_after(victim: Victim, tmp_path: Path) -> None:
    """A power cut keeps what was fsynced: files before the rename of them or of their folder, the name after."""
    _, calls = victim.do("save", prepared("save"))
    dirty, renames = set[str](), 0
    root = f"{tmp_path}/prepared/"
    for call in calls:
        if call.startswith("write(") and root in call:
            dirty.add(re.search(r"<(.*?)>", call)[1])  # type: ignore[index]
        elif call.startswith("mkdir"):
            dirty.add(root + re.search(r'"(.*?)"', call)[1])  # type: ignore[index]
        elif call.startswith("fsync("):
            dirty.discard(re.search(r"<(.*?)>", call)[1])  # type: ignore[index]
        elif call.startswith("rename"):
            old, new = (root + path for path in re.findall(r'"(.*?)"', call))
            assert not {path for path in dirty if path.startswith(old)}, call
            if not new.endswith(".removing"):
                assert not dirty, call  # the name before this one
                dirty.add(str(Path(new).parent))
                renames += 1
    assert renames == 2
    assert not dirty
