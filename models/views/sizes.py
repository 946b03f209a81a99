"""Views of several sizes, in batches of one size."""

from itertools import groupby

import torch
from torch import Tensor


def by_size(views: list[tuple[Tensor, ...]]) -> list[list[Tensor]]:
    """Neighbouring views of one size, and what comes with each, in one batch: the encoder runs once a size."""
    grouped = groupby(views, key=lambda view: view[0].shape[-1])
    return [[torch.cat(column) for column in zip(*group, strict=True)] for _, group in grouped]
