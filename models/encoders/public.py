"""Read weights files of other projects and of our own: who wrote them, and which tensors belong to the encoder.

The formats are those of the official code: facebookresearch/mae, facebookresearch/dino, pytorch/vision, timm. No code
in a file is run.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import CheckpointError
from models.encoders.weights import listed


@dataclass(frozen=True)
class Source:
    """Who wrote a weights file, and which parts of it do not belong to an encoder."""

    name: str
    aside: tuple[str, ...] = ()  # prefixes of keys that do not belong to an encoder
    normalize: str | None = "imagenet"  # a key of PUBLISHED; None: the file does not say
    licence: str = ""  # of the weights, where their authors state one


OURS = Source("ours")
MAE = Source("MAE", ("mask_token", "decoder_", "head."), licence="CC BY-NC 4.0, no commercial use")
DINO = Source("DINO's teacher", ("head.",), licence="Apache 2.0")
TORCHVISION = Source("torchvision", ("fc.",))
TIMM = Source("timm", ("head.",), normalize=None)  # augreg's were trained with 0.5 / 0.5, DeiT's with ImageNet's
BARE = Source("a backbone without a head, as DINO's")


class Unread:
    """Stands in for an object of a file that is no tensor: it accepts any state and keeps nothing."""

    def __init__(self, *state: Any):
        pass

    __setstate__ = __init__


BESIDE = [  # objects that the official training code saves beside tensors
    (Unread, "argparse.Namespace"),  # args
    (Unread, "pathlib.PosixPath"),  # args.output_dir, where submitit ran it
    (Unread, "numpy.core.multiarray.scalar"),  # DINO's lr and weight decay, which numpy scheduled
    (Unread, "numpy._core.multiarray.scalar"),
    (Unread, "numpy.dtype"),
]


@dataclass(frozen=True)
class Weights:
    """The contents of a weights file."""

    source: Source
    tensors: dict[str, Tensor]  # of the encoder, under its names
    aside: list[str]  # keys of the file that do not belong to the encoder


def read(path: Path) -> Weights:
    """The encoder's tensors in a weights file. Raises CheckpointError for any other file."""
    source, tensors = recognise(content(path), path)
    if wrong := [k for k, v in tensors.items() if not isinstance(v, Tensor)]:
        raise CheckpointError(
            f"The file {path} has entries that are no tensors: {listed(wrong)}. Save a state_dict only."
        )
    inside = {k: v for k, v in tensors.items() if not k.startswith(source.aside)}
    if broken := [k for k, v in inside.items() if not v.isfinite().all()]:
        raise CheckpointError(f"The file {path} has numbers that are not finite in {listed(broken)}. Use another file.")
    return Weights(source, inside, [k for k in tensors if k not in inside])


def content(path: Path) -> Any:
    """The object that torch.save or safetensors wrote."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415 - training can run without it

            return load_file(path)
        with torch.serialization.safe_globals(list(BESIDE)), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise CheckpointError(
            f"The file {path} needs the package safetensors. Install it: pip install safetensors."
        ) from None
    except Exception as error:  # damaged bytes raise anything
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and called:
            raise CheckpointError(
                f"The file {path} asks to run {called[1]}, but only tensors are read. Save its state_dict instead."
            ) from None
        raise CheckpointError(
            f"The file {path} is damaged, or no checkpoint of torch or safetensors. Download or save it again."
        ) from None


def recognise(found: Any, path: Path) -> tuple[Source, dict[str, Any]]:
    """The source of a file, by its keys, and its tensors under the encoder's names."""
    tensors = named(found, path)
    if {"student", "teacher"} <= tensors.keys():
        teacher = named(tensors["teacher"], path)
        # `module.` is DDP's, around a teacher with batch norm; `backbone.` the multi-crop wrapper's
        return DINO, {k.removeprefix("module.").removeprefix("backbone."): v for k, v in teacher.items()}
    if "model" in tensors:
        return MAE, named(tensors["model"], path)
    if "weights" in tensors:
        tensors = named(tensors["weights"], path)
    if "normalize.mean" in tensors:
        return OURS, tensors
    if "patch_embed.proj.weight" in tensors:
        return TIMM if "head.weight" in tensors else BARE, tensors
    if "conv1.weight" in tensors:
        return TORCHVISION if "fc.weight" in tensors else BARE, tensors
    raise CheckpointError(
        f"The file {path} has the unknown keys {listed(list(tensors))}. Use a file of MAE, DINO, torchvision's "
        "ResNets, timm's ViTs or this project."
    )


def named(found: Any, path: Path) -> dict[str, Any]:
    """The mapping that a file must hold here. Raises CheckpointError."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise CheckpointError(
            f"The file {path} holds {type(found).__name__} instead of names and tensors. Save a state_dict."
        )
    return dict(found)
