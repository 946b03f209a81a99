"""Parameters of the stages that train with labels: which labels, for how long, and with which settings."""

from dataclasses import dataclass

from models.baselines.fixmatch import FixMatchParams
from models.baselines.pseudolabel import PseudoLabelParams
from models.baselines.supervised import SupervisedParams
from models.method import MethodParams
from models.methods import BaselineParams as Baseline


@dataclass(frozen=True, kw_only=True)
class LabelSamples:
    """Some of the probe's label counts and label samples. All labels are always trained with as well."""

    shots: tuple[int, ...]  # labels per class; an empty list: all labels only
    label_samples: int
    all_labels: float = 1.0  # factor on the steps where all labels are used: more labels take longer to learn,
    passes: float = 20.0  # but never more than this many passes through the labelled images

    def steps_of_all(self, few: int, labelled: int, batch_size: int) -> int:
        """The steps of a training run with all labels of so many images; a run with few labels has `few`."""
        return max(few, round(min(few * self.all_labels, self.passes * labelled / batch_size)))


@dataclass(frozen=True, kw_only=True)
class FinetuneParams(LabelSamples, SupervisedParams):
    steps: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    budget: float  # images to train on, as a share of those that pretraining shows the same backbone


@dataclass(frozen=True, kw_only=True)
class SupervisedBaseline(Budget, SupervisedParams):
    pass


@dataclass(frozen=True, kw_only=True)
class PseudoLabelBaseline(Budget, PseudoLabelParams):
    pass


@dataclass(frozen=True, kw_only=True)
class FixMatchBaseline(Budget, FixMatchParams):
    pass


BaselineParams = SupervisedBaseline | PseudoLabelBaseline | FixMatchBaseline


def batch_of(params: MethodParams | Baseline) -> tuple[int, int]:
    """Labelled images per step, and unlabelled ones."""
    more = params.unlabelled if isinstance(params, PseudoLabelParams | FixMatchParams) else 0
    return params.batch_size, params.batch_size * more
