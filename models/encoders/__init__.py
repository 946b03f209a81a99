"""The encoders that pretraining trains, by their names in params.yaml."""

from models.encoders import resnet, vit
from models.encoders.encoder import EncoderParams

ENCODERS: dict[str, type[EncoderParams]] = {  # `arch` → the class of its parameters
    **dict.fromkeys(resnet.DEPTHS, resnet.ResNetParams),
    **dict.fromkeys(vit.SIZES, vit.ViTParams),
}
