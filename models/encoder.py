"""Which encoder, and its way to and from a file of plain tensors."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from models.resnet import ResNet, ResNetParams
from models.vit import ViT, ViTParams

EncoderParams = ResNetParams | ViTParams
Encoder = ResNet | ViT


class CheckpointError(Exception):
    """Weights that do not fit the encoder; the message names the keys."""


def build(params: EncoderParams, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """A freshly initialised encoder (from torch's global generator)."""
    if isinstance(params, ResNetParams):
        return ResNet(params, mean, std)
    return ViT(params, image_size, mean, std)


def load(encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the encoder. The normalisation may be absent (public checkpoints have none).

    Raises CheckpointError that names missing and unknown keys, or the first key of another shape.
    """
    own = encoder.state_dict()
    missing = [k for k in own if k not in weights and not k.startswith("normalize.")]
    unknown = [k for k in weights if k not in own]
    if missing or unknown:
        raise CheckpointError(f"the weights do not fit: missing {missing or 'none'}, unknown {unknown or 'none'}")
    for key, tensor in weights.items():
        if tensor.shape != own[key].shape:
            raise CheckpointError(
                f"the weights do not fit: {key} is {tuple(tensor.shape)}, expected {tuple(own[key].shape)}"
            )
    encoder.load_state_dict(dict(weights), strict=False)
