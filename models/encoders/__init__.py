"""The networks that survive pretraining, by the names that params.yaml has for them."""

from models.encoders import resnet, vit
from models.encoders.encoder import EncoderParams

ENCODERS: dict[str, type[EncoderParams]] = {  # `arch` → the class of its parameters
    **dict.fromkeys(resnet.DEPTHS, resnet.ResNetParams),
    **dict.fromkeys(vit.SIZES, vit.ViTParams),
}
