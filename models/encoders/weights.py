"""Build an encoder from plain tensors, and check that they fit."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor

from models import CheckpointError
from models.encoders import ENCODERS
from models.encoders.encoder import Encoder

Spec = dict[str, Any]  # encoder: its params; image_size: px; and more that the pipeline knows of it


def restore(spec: Spec, weights: Mapping[str, Tensor]) -> Encoder:
    """The encoder that `spec` describes, with these weights, in eval mode. Raises CheckpointError."""
    given = spec["encoder"]
    if (kind := ENCODERS.get(given["arch"])) is None:
        raise CheckpointError(f"There is no encoder {given['arch']}. Allowed: {', '.join(ENCODERS)}.")
    params = kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})
    encoder = params.build(spec["image_size"], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    load(encoder, weights)
    return encoder.eval()


def load(encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the encoder. Raises CheckpointError when they do not fit."""
    check(encoder, weights)
    encoder.load_state_dict(dict(weights), strict=False)


def check(encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError that names missing and unknown keys, or the first key of another shape.

    Keys that public checkpoints lack are optional: the normalisation, and batch norm's count of batches, which is
    missing in old files and which nothing reads.
    """
    own = encoder.state_dict()
    optional = [k for k in own if k.startswith("normalize.") or k.endswith(".num_batches_tracked")]
    missing = [k for k in own if k not in weights and k not in optional]
    unknown = [k for k in weights if k not in own]
    if missing or unknown:
        raise CheckpointError(
            f"The weights do not fit the encoder: missing {listed(missing)}; unknown {listed(unknown)}. "
            "Choose other weights or another encoder."
        )
    for key, tensor in weights.items():
        if tensor.shape != own[key].shape:
            raise CheckpointError(
                f"The weights do not fit the encoder: {key} is {tuple(tensor.shape)} instead of "
                f"{tuple(own[key].shape)}. Choose other weights or another encoder."
            )


def listed(keys: Sequence[str]) -> str:
    """Keys for a sentence: all of them when they are few, else the first and how many more."""
    if len(keys) <= 4:
        return ", ".join(keys) or "none"
    return f"{', '.join(keys[:3])} and {len(keys) - 3} more"
