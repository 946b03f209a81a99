"""`encoder.init`: find the weights that a training run starts from, and load them into a fresh method."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import CheckpointError
from models.encoders import public, weights
from models.encoders.encoder import Encoder, EncoderParams
from models.encoders.normalize import PUBLISHED
from models.encoders.weights import listed
from models.method import Method, MethodParams
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store

REGISTRY = "models:/"


def init_digest(params: MethodParams) -> str | None:
    """SHA-256 of the file of weights, for the identity of a run; None for a start from scratch."""
    if params.encoder.init is None:
        return None
    with locate(params.encoder.init).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def apply(method: Method, params: MethodParams, name: str) -> str | None:
    """Load the weights of `encoder.init` into every encoder of a fresh method (DINO has two); return a line about it.

    Only the encoder is loaded: heads, MAE's decoder and DINO's centre start fresh. Raises CheckpointError, StageError.
    """
    chosen = params.encoder
    if chosen.init is None:
        return None
    try:
        found = public.read(locate(chosen.init))
        tensors = dict(found.tensors)
        count = sum(not k.startswith("normalize.") for k in tensors)
        clauses = [
            f"{count} tensors from {chosen.init} ({found.source.name}{licence(found.source)})",
            f"left aside: {listed(found.aside)}",
            *method.encoder.regrid(tensors),
            normalize(tensors, found.source, chosen.normalize),
        ]
        for module in method.modules():
            if isinstance(module, Encoder):
                weights.load(module, tensors)
    except CheckpointError as error:
        sentence = other(chosen, name) or error
        raise CheckpointError(f"Parameter {name}.encoder.init: {sentence}") from None
    return f"{name}.encoder.init: {'; '.join(clauses)}"


def licence(source: public.Source) -> str:
    """The licence note for everybody who serves an encoder that started from these weights."""
    return f"; if they are the official weights, their licence is {source.licence}" if source.licence else ""


def other(chosen: EncoderParams, name: str) -> str | None:
    """The message when the weights are of an encoder of ours with another architecture; None when that is not known."""
    note = locate(str(chosen.init)).with_name("encoder.json")
    if not note.is_file():
        return None
    theirs = json.loads(note.read_text(encoding="utf-8"))["encoder"]
    ours = {k: v for k, v in asdict(chosen).items() if k not in ("init", "normalize")}
    theirs = {k: theirs[k] for k in theirs if k not in ("init", "normalize")}
    if ours == theirs:
        return None
    return (
        f"The weights {chosen.init} are of the encoder {built(theirs)}, but {name}.encoder is {built(ours)}. "
        "Make the two equal, or choose other weights."
    )


def built(params: Mapping[str, Any]) -> str:
    """`{arch: resnet10, width: 16, stem: small/2}`"""
    return f"{{{', '.join(f'{k}: {v}' for k, v in params.items())}}}"


def normalize(tensors: dict[str, Tensor], source: public.Source, wanted: str) -> str:
    """Put the right mean and std into `tensors`, or keep those of the encoder; return a phrase about it."""
    own = [k for k in tensors if k.startswith("normalize.")]
    if wanted == "auto" and own:
        return "normalize: their own"
    for k in own:
        del tensors[k]
    if wanted == "auto":
        if source.normalize is None:
            raise CheckpointError(
                f"A file of {source.name} does not say how its images were normalised. Set encoder.normalize to half "
                "(augreg) or imagenet (DeiT, DINO, MAE)."
            )
        wanted = source.normalize
        for k, values in zip(("mean", "std"), PUBLISHED[wanted], strict=True):
            tensors[f"normalize.{k}"] = torch.tensor(values).view(3, 1, 1)
    return f"normalize: {wanted}"


def locate(init: str) -> Path:
    """The file: itself, the one in a saved encoder's folder, or the registry's. Raises CheckpointError, StageError."""
    path = download(init) if init.startswith(REGISTRY) else Path(init)
    path = path / "weights.safetensors" if path.is_dir() else path
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise CheckpointError(
            f"The weights {init} are missing or cannot be read. Set encoder.init to a file of weights, the folder of "
            f"a saved encoder, or {REGISTRY}NAME/VERSION."
        )
    return path


def lineage(spec: Mapping[str, Any]) -> dict[str, str]:
    """Tags that say which weights an encoder started from; none when it was trained from scratch."""
    digest = spec.get("init_digest")
    return {"init": spec["encoder"]["init"], "init_digest": digest} if digest else {}


@cache  # an alias must mean the same version during a whole training run
def download(address: str) -> Path:
    try:
        return mlflow_store.download(address)
    except ImportError:
        raise StageError(
            f"The weights {address} are in MLflow's registry, but MLflow is not installed here. Run `make setup`."
        ) from None
