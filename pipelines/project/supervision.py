"""Parameters of the stages that train with labels: which labels, for how long, and with which settings."""

from dataclasses import dataclass
from typing import Literal

from models.baselines.fixmatch import FixMatchParams
from models.baselines.pseudolabel import PseudoLabelParams
from models.baselines.supervised import SupervisedParams
from models.method import MethodParams
from models.methods import BaselineParams as Baseline


@dataclass(frozen=True, kw_only=True)
class LabelSamples:
    """Some of the probe's label counts and label samples. All labels are always trained with as well."""

    shots: tuple[int, ...]  # labels per class, some of probe.shots; []: all labels only
    label_samples: int  # random choices of labelled images per count, at most probe.label_samples
    all_labels: float = 1.0  # steps with all labels, as a multiple of the steps with few labels
    passes: float = 20.0  # limit with all labels: passes through the labelled images

    def steps_of_all(self, few: int, labelled: int, batch_size: int) -> int:
        """The steps of a training run with all labels of so many images; a run with few labels has `few`."""
        return max(few, round(min(few * self.all_labels, self.passes * labelled / batch_size)))


@dataclass(frozen=True, kw_only=True)
class BaselineLabels(LabelSamples):
    encoders: Literal["all", "first"] = "all"  # train each different encoder from scratch, or the first method's only


@dataclass(frozen=True, kw_only=True)
class FinetuneParams(LabelSamples, SupervisedParams):
    steps: int  # steps of a fine-tuning with few labels
    pseudolabel: bool = True  # fine-tune a second time with pseudo-labels for all train images, beside the known labels


@dataclass(frozen=True, kw_only=True)
class Budget:
    budget: float  # images that the baseline sees, as a share of those that pretraining of this encoder sees


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
