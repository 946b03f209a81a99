"""The encoder that a pretraining started from, as it was: the fair baseline for a pretraining that only continues."""

import sys

from data.shards import Manifest
from models import CheckpointError
from models.encoders.encoder import Encoder
from models.methods import TITLES
from pipelines.engine import initial_weights
from pipelines.project.config import Config
from pipelines.project.stage import StageError
from pipelines.saving.pretrained import Pretrained


def encoder(method: str, c: Config, m: Manifest, pretrained: Pretrained) -> Encoder | None:
    """In eval mode; None where the pretraining started from scratch.

    Also None, with a sentence, where the weights are no longer those that it started from: an alias may have moved.
    """
    started_from, params = pretrained.spec.get("init_digest"), c.method(method)
    if started_from is None:
        return None
    try:
        found = initial_weights.init_digest(params)
        if found == started_from:
            made = c.build(method, m, c.seed)
            initial_weights.apply(made, params, method)
            return made.encoder.eval()
        reason = f"The weights {params.encoder.init} have changed since the pretraining started from them."
    except (CheckpointError, StageError) as error:
        reason = str(error)
    print(
        f"The starting weights of {TITLES[method]} are not measured. {reason} To start from the present weights, run "
        f"`dvc repro -f pretrain@{method}`.",
        file=sys.stderr,
    )
    return None
