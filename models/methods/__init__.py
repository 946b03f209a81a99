"""The methods and the baselines, by the names that params.yaml has for them."""

from collections.abc import Callable

from models.baselines.fixmatch import FixMatch, FixMatchParams
from models.baselines.pseudolabel import PseudoLabel, PseudoLabelParams
from models.baselines.supervised import Supervised, SupervisedParams
from models.method import Baseline, Pretraining
from models.methods.dino import DINO
from models.methods.mae import MAE
from models.methods.simclr import SimCLR

METHODS: dict[str, type[Pretraining]] = {"simclr": SimCLR, "mae": MAE, "dino": DINO}
BaselineParams = SupervisedParams | PseudoLabelParams | FixMatchParams
BASELINES: dict[str, Callable[..., Baseline]] = {
    "supervised": Supervised,
    "pseudolabel": PseudoLabel,
    "fixmatch": FixMatch,
}
TITLES = {name: method.TITLE for name, method in METHODS.items()} | {  # what each is called in text for people
    "supervised": "supervised training",
    "pseudolabel": "pseudo-labelling",
    "fixmatch": "FixMatch",
}
