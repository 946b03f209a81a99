"""Checkpoints of an unfinished run: each whole on the disk or not there at all, and never another run's.

    .scratch/pretrain/<method>/
        step-00000120/   state.pt; history.jsonl up to that step; manifest.json: SHA-256 and size of both, the identity
        newest           the name of the last one that was saved
        history.jsonl    the rows as they come
        aside/           the last few that were damaged or of another run
        seed-1/          the same of a further training, of that seed

What is being made or removed has a name with a dot in front; a rename gives or takes the proper name.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from data.disk import refusal
from pipelines.project import stage
from pipelines.project.params import flat
from pipelines.project.stage import StageError
from pipelines.saving.atomic_files import replace, sealed, sync, unsealed, write

KEPT = 2
ASIDE = 2


def code(name: str) -> dict[str, str]:
    """File → SHA-256 of the sources that decide a method's numbers: those for which dvc.yaml trains it anew."""
    deps = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]["pretrain"]["do"]["deps"]
    paths = [Path(dep.replace("${item}", name)) for dep in deps]
    files = [file for path in paths for file in ([path] if path.suffix == ".py" else sorted(path.rglob("*.py")))]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Checkpoints:
    """The scratch folder of one method's training. One process has it at a time (the stage's lock).

    identity: all that decides the numbers, by part: {"params": {…}, "data": digest, "code": {file: digest}, …}, as
    JSON knows it. Once this is made, what the folder holds is whole and of this identity, the history as it was at the
    newest checkpoint; what was not is set aside, and stderr says why. Raises StageError when the disk does not let it.
    seed: of a further training of the method.
    """

    def __init__(self, name: str, identity: Mapping[str, Any], seed: int | None = None):
        self.name = name
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.folder = stage.SCRATCH / "pretrain" / name / ("" if seed is None else f"seed-{seed}")
        self.history = self.folder / "history.jsonl"
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.run = self.folder / f"run-{digest[:16]}"  # for the tracker: which of its runs is of this identity
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for place in (self.folder, *self.folder.parents):
                sync(place)
            self.newest = self.recover()
        except OSError as error:
            raise StageError(f"{self.folder} cannot be read and written: {refusal(error, self.folder)}") from None

    def append(self, row: Mapping[str, float]) -> None:
        """A row of the history, not fsynced: the step would wait. Raises StageError when the disk does not take it."""
        try:
            with self.history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise StageError(
                f"{self.history} cannot be written: {refusal(error, self.folder)}; {self.left()}"
            ) from None

    def save(self, state: Mapping[str, Any], rows: bytes | None = None) -> None:
        """A checkpoint of the state after state["step"] steps; rows: the history up to there, or else all of it.

        Whenever the process is killed, this checkpoint or those before it are there, whole. Raises StageError, and
        those before it are there, when the disk does not take it or a tensor of it is not finite.
        """
        step, history = state["step"], self.rows() if rows is None else rows
        if key := next(not_finite(state), None):
            raise StageError(
                f"{key} is not finite after step {step}, which is not saved; lower the learning rate; {self.left()}"
            )
        name, temporary = f"step-{step:08d}", self.folder / ".saving"
        if name in self.steps():
            return  # told to stop just after it was saved
        try:
            temporary.mkdir()
            files = {
                "state.pt": write(temporary / "state.pt", lambda file: torch.save(state, file)),
                "history.jsonl": write(temporary / "history.jsonl", lambda file: file.write(history)),
            }
            manifest = sealed({"identity": self.identity, "files": files})
            write(temporary / "manifest.json", lambda file: file.write(manifest))
            sync(temporary)
            temporary.rename(self.folder / name)
            sync(self.folder)
            self.point_to(name)
            self.newest = name
            for old in self.steps()[:-KEPT]:
                self.remove(self.folder / old)
        except OSError as error:
            why = refusal(error, self.folder)
            raise StageError(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {why}; {self.left()}"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, on the CPU; None: from step 0."""
        if not self.newest:
            return None
        self.say(f"going on from the checkpoint of step {number(self.newest)}")
        file = self.folder / self.newest / "state.pt"
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    def recover(self) -> str | None:
        """The name of the newest usable checkpoint, and the folder as it was when that one was saved."""
        for leftover in self.folder.glob(".*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        before, newest = self.steps(), self.folder / "newest"
        if newest.exists() and (named := newest.read_text(errors="replace", encoding="utf-8").strip()) not in before:
            self.say(f"the newest checkpoint should be {named!r}, which is not there")
        name = self.usable() or (self.usable() if self.bring_back() else None)
        for old in self.aside()[:-ASIDE]:
            self.remove(old)
        if not name:
            newest.unlink(missing_ok=True)
            self.history.unlink(missing_ok=True)
            sync(self.folder)
            if before:
                self.say("no checkpoint is left; training starts from the beginning")
            return None
        replace(self.history, lambda file: file.write((self.folder / name / "history.jsonl").read_bytes()))
        self.point_to(name)
        return name

    def clear(self) -> None:
        """Remove what was of use to an unfinished run; what was set aside may be of one to go back to."""
        for path in (self.folder / "newest", self.history, self.run):
            path.unlink(missing_ok=True)
        for name in self.steps():
            self.remove(self.folder / name)

    def usable(self) -> str | None:
        """The newest checkpoint without a fault; those after it are set aside."""
        for name in reversed(self.steps()):
            if not (fault := self.fault(self.folder / name)):
                return name
            count = 1 + max((int(path.name.partition("-")[0]) for path in self.aside()), default=0)
            place = self.folder / "aside" / f"{count:04d}-{name}"
            place.parent.mkdir(exist_ok=True)
            (self.folder / name).rename(place)
            sync(place.parent)
            sync(self.folder)
            self.say(f"the checkpoint of step {number(name)} {fault}; set aside in {place}")
        return None

    def bring_back(self) -> bool:
        """Whether something was set aside that has no fault now: the params were others for a while."""
        ours = [path for path in self.aside() if not self.fault(path)]
        for path in ours:
            path.rename(self.folder / path.name.partition("-")[2])
        return bool(ours)

    def fault(self, folder: Path) -> str | None:
        """Why a checkpoint cannot be used, or None."""
        try:
            manifest = unsealed((folder / "manifest.json").read_bytes())
            if manifest is None:
                return "is damaged: manifest.json has another SHA-256 than it says"
            if other := differences(manifest["identity"], self.identity):
                return f"is of other {other}"
            for name, written in manifest["files"].items():
                with (folder / name).open("rb") as file:
                    if (size := os.fstat(file.fileno()).st_size) != written["bytes"]:
                        return f"is damaged: {name} has {size} bytes, {written['bytes']} were written"
                    if hashlib.file_digest(file, "sha256").hexdigest() != written["sha256"]:
                        return f"is damaged: {name} has another SHA-256 than what was written"
        except FileNotFoundError as error:
            return f"is damaged: {Path(error.filename).name} is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None

    def steps(self) -> list[str]:
        """The names of the checkpoints, the oldest first."""
        return sorted((p.name for p in self.folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)), key=number)

    def aside(self) -> list[Path]:
        """What was set aside, the first first."""
        return sorted((self.folder / "aside").glob("*-step-*"))

    def rows(self) -> bytes:
        return self.history.read_bytes() if self.history.exists() else b""

    def point_to(self, name: str) -> None:
        replace(self.folder / "newest", lambda file: file.write(f"{name}\n".encode()))

    def remove(self, folder: Path) -> None:
        """A folder that loses its files loses its name first."""
        shutil.rmtree(folder.rename(self.folder / ".removing"))

    def left(self) -> str:
        """The end of a sentence on what went wrong."""
        steps = self.steps()
        return f"the checkpoint of step {number(steps[-1])} is kept" if steps else "there is no checkpoint before it"

    def say(self, sentence: str) -> None:
        print(f"pretrain@{self.name}: {sentence}", file=sys.stderr)


def number(name: str) -> int:
    """The steps that a checkpoint has behind it, from its name."""
    return int(name.removeprefix("step-"))


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """`params (mae.optim.lr 0.003, now 0.001)`, part by part; empty where the identities are the same."""
    parts = []
    for part in [*ours, *(part for part in theirs if part not in ours)]:
        then, now = flat(theirs.get(part, {})), flat(ours.get(part, {}))
        other = [key for key in [*now, *(key for key in then if key not in now)] if then.get(key) != now.get(key)]
        shown = [f"{key} {short(then.get(key))}, now {short(now.get(key))}".strip() for key in other[:3]]
        shown += [f"and {len(other) - 3} more"] if len(other) > 3 else []
        parts += [f"{part} ({'; '.join(shown)})"] if other else []
    return " and other ".join(parts)


def short(value: str | None) -> str:
    """A value in a sentence; a digest by its beginning."""
    return "absent" if value is None else value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value


def not_finite(content: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of the tensors that hold an infinity or NaN."""
    if isinstance(content, Tensor):
        if not content.isfinite().all():
            yield key
    elif isinstance(content, Mapping | list | tuple):
        for name, value in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from not_finite(value, f"{key}.{name}".lstrip("."))
