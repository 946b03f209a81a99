"""What the stages that train with labels are told: which labels, for how long, and by which recipe."""

from dataclasses import dataclass

from models.fixmatch import FixMatchParams
from models.pseudolabel import PseudoLabelParams
from models.supervised import SupervisedParams


@dataclass(frozen=True, kw_only=True)
class LabelDraws:
    """Some of the probe's label counts and draws; all labels are always one draw more."""

    shots: tuple[int, ...]  # labels a class; none: all labels only
    draws: int


@dataclass(frozen=True, kw_only=True)
class FinetuneParams(LabelDraws, SupervisedParams):
    steps: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    budget: float  # share of the images (views through the backbone) that this backbone's pretraining sees


@dataclass(frozen=True, kw_only=True)
class SupervisedControl(Budget, SupervisedParams):
    pass


@dataclass(frozen=True, kw_only=True)
class PseudoLabelControl(Budget, PseudoLabelParams):
    pass


@dataclass(frozen=True, kw_only=True)
class FixMatchControl(Budget, FixMatchParams):
    pass


ControlParams = SupervisedControl | PseudoLabelControl | FixMatchControl
