"""Checkpoints of an unfinished run. Each is complete on the disk or not there, and never that of another run.

    .scratch/pretrain/<method>/
        step-00000120/   state.pt; history.jsonl up to that step; manifest.json: SHA-256 and size of both, the identity
        newest           the name of the checkpoint that was saved last
        history.jsonl    the rows so far
        aside/           the last few checkpoints that were damaged or from another run
        seed-1/          the same for a further training run, with that seed

While something is created or removed, its name has a dot in front. A rename adds or removes the dot.
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

KEPT, ASIDE = 2, 2  # checkpoints in the folder, and in aside/


def code(name: str) -> dict[str, str]:
    """File → SHA-256, for the sources that decide a method's numbers: those for which dvc.yaml retrains it."""
    deps = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]["pretrain"]["do"]["deps"]
    paths = [Path(dep.replace("${item}", name)) for dep in deps]
    files = [file for path in paths for file in ([path] if path.suffix == ".py" else sorted(path.rglob("*.py")))]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Checkpoints:
    """The scratch folder of one method's training run. The stage's lock gives it to one process at a time.

    identity: everything that decides the numbers, as JSON: {"params": {…}, "data": digest, "code": {file: digest}, …}.
    The constructor keeps complete checkpoints of this identity and the history up to the newest one. It moves all
    others to aside/ and says why on stderr. Raises StageError when the disk refuses.
    seed: that of a further training run of the method.
    """

    def __init__(self, name: str, identity: Mapping[str, Any], seed: int | None = None):
        self.name = name
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.folder = stage.SCRATCH / "pretrain" / name / ("" if seed is None else f"seed-{seed}")
        self.history = self.folder / "history.jsonl"
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.run = self.folder / f"run-{digest[:16]}"  # keeps the id of the MLflow run of this identity
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for place in (self.folder, *self.folder.parents):
                sync(place)
            self.newest = self.recover()
        except OSError as error:
            why = refusal(error, self.folder)
            raise StageError(f"The folder {self.folder} cannot be read and written: {why}.") from None

    def append(self, row: Mapping[str, float]) -> None:
        """Append a row to the history, without fsync, which would hold up the step. Raises StageError."""
        try:
            with self.history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            why = refusal(error, self.folder)
            raise StageError(f"The file {self.history} cannot be written: {why}. {self.left()}") from None

    def save(self, state: Mapping[str, Any], rows: bytes | None = None) -> None:
        """Save the state after state["step"] steps. rows: the history up to there; by default all of it.

        Whenever the process is killed, this checkpoint or the earlier ones are there and complete. Raises StageError
        when the disk refuses or a tensor is not finite; the earlier checkpoints stay.
        """
        step, history = state["step"], self.rows() if rows is None else rows
        if key := next(not_finite(state), None):
            raise StageError(
                f"The tensor {key} is not finite after step {step}, so that step is not saved. Lower the learning "
                f"rate. {self.left()}"
            )
        name, temporary = f"step-{step:08d}", self.folder / ".saving"
        if name in self.steps():
            return  # a stop signal came just after it was saved
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
                f"The checkpoint of step {step} cannot be written to {self.folder}: {why}. {self.left()}"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def load(self) -> dict[str, Any] | None:
        """The state to resume from, on the CPU; None to start at step 0."""
        if not self.newest:
            return None
        self.say(f"Resuming from the checkpoint of step {number(self.newest)}.")
        file = self.folder / self.newest / "state.pt"
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    def recover(self) -> str | None:
        """Restore the folder as it was at the newest usable checkpoint; return the name of that checkpoint."""
        for leftover in self.folder.glob(".*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        before, newest = self.steps(), self.folder / "newest"
        if newest.exists() and (named := newest.read_text(errors="replace", encoding="utf-8").strip()) not in before:
            self.say(f"The newest checkpoint should be {named!r}, but it is missing.")
        name = self.usable() or (self.usable() if self.bring_back() else None)
        for old in self.aside()[:-ASIDE]:
            self.remove(old)
        if not name:
            newest.unlink(missing_ok=True)
            self.history.unlink(missing_ok=True)
            sync(self.folder)
            if before:
                self.say("No checkpoint is left. Training starts from the beginning.")
            return None
        replace(self.history, lambda file: file.write((self.folder / name / "history.jsonl").read_bytes()))
        self.point_to(name)
        return name

    def clear(self) -> None:
        """Remove the checkpoints of a finished run. aside/ stays: it may hold a run to return to."""
        for path in (self.folder / "newest", self.history, self.run):
            path.unlink(missing_ok=True)
        for name in self.steps():
            self.remove(self.folder / name)

    def usable(self) -> str | None:
        """The newest checkpoint without a fault; newer ones are moved to aside/."""
        for name in reversed(self.steps()):
            if not (fault := self.fault(self.folder / name)):
                return name
            count = 1 + max((int(path.name.partition("-")[0]) for path in self.aside()), default=0)
            place = self.folder / "aside" / f"{count:04d}-{name}"
            place.parent.mkdir(exist_ok=True)
            (self.folder / name).rename(place)
            sync(place.parent)
            sync(self.folder)
            self.say(f"The checkpoint of step {number(name)} {fault}. It is moved to {place}.")
        return None

    def bring_back(self) -> bool:
        """Move checkpoints back from aside/ that have no fault now, because the params are as they were before."""
        ours = [path for path in self.aside() if not self.fault(path)]
        for path in ours:
            path.rename(self.folder / path.name.partition("-")[2])
        return bool(ours)

    def fault(self, folder: Path) -> str | None:
        """Why a checkpoint cannot be used, or None."""
        try:
            manifest = unsealed((folder / "manifest.json").read_bytes())
            if manifest is None:
                return "is damaged: the SHA-256 of manifest.json is wrong"
            if other := differences(manifest["identity"], self.identity):
                return f"is from a run with other {other}"
            for name, written in manifest["files"].items():
                with (folder / name).open("rb") as file:
                    if (size := os.fstat(file.fileno()).st_size) != written["bytes"]:
                        return f"is damaged: {name} has {size} bytes instead of {written['bytes']}"
                    if hashlib.file_digest(file, "sha256").hexdigest() != written["sha256"]:
                        return f"is damaged: the SHA-256 of {name} is wrong"
        except FileNotFoundError as error:
            return f"is damaged: {Path(error.filename).name} is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None

    def steps(self) -> list[str]:
        """The names of the checkpoints, the oldest first."""
        return sorted((p.name for p in self.folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)), key=number)

    def aside(self) -> list[Path]:
        """The checkpoints in aside/, the oldest first."""
        return sorted((self.folder / "aside").glob("*-step-*"))

    def rows(self) -> bytes:
        return self.history.read_bytes() if self.history.exists() else b""

    def point_to(self, name: str) -> None:
        replace(self.folder / "newest", lambda file: file.write(f"{name}\n".encode()))

    def remove(self, folder: Path) -> None:
        """Rename a folder, then remove it, so that no half-removed folder has a checkpoint's name."""
        shutil.rmtree(folder.rename(self.folder / ".removing"))

    def left(self) -> str:
        """A sentence on which checkpoint is left, for the end of a message."""
        steps = self.steps()
        return f"The checkpoint of step {number(steps[-1])} is kept." if steps else "There is no earlier checkpoint."

    def say(self, sentence: str) -> None:
        print(f"pretrain@{self.name}: {sentence}", file=sys.stderr)


def number(name: str) -> int:
    """The step of a checkpoint, from its name."""
    return int(name.removeprefix("step-"))


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """`params (mae.optim.lr 0.003, now 0.001)`, for every part that differs; empty when the identities are equal."""
    parts = []
    for part in [*ours, *(part for part in theirs if part not in ours)]:
        then, now = flat(theirs.get(part, {})), flat(ours.get(part, {}))
        other = [key for key in [*now, *(key for key in then if key not in now)] if then.get(key) != now.get(key)]
        shown = [f"{key} {short(then.get(key))}, now {short(now.get(key))}".strip() for key in other[:3]]
        shown += [f"and {len(other) - 3} more"] if len(other) > 3 else []
        parts += [f"{part} ({'; '.join(shown)})"] if other else []
    return " and other ".join(parts)


def short(value: str | None) -> str:
    """A value for a sentence; a digest is cut."""
    return "absent" if value is None else value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value


def not_finite(content: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of the tensors that hold an infinity or NaN."""
    if isinstance(content, Tensor):
        if not content.isfinite().all():
            yield key
    elif isinstance(content, Mapping | list | tuple):
        for name, value in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from not_finite(value, f"{key}.{name}".lstrip("."))
