"""Measure frozen features: linear probe, kNN, and figures without labels; all from arrays of features."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.evaluation.logistic import LogisticRegression

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
FOLDS = 5
ENOUGH = 500


@torch.inference_mode()
def extract(encoder: nn.Module, batches: Iterable[Tensor], device: torch.device) -> Array:
    """Features (n, D) of uint8 image batches (B, 3, S, S), in eval mode.

    On a GPU it uses TF32, which does not change the cosine of an embedding, and reads the next batch without waiting.
    """
    encoder = encoder.to(device).eval()
    with tf32():
        features = [fetched(encoder(sent(x, device)).float()) for x in batches]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return torch.cat(features).numpy()


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; to a GPU from pinned memory, so that the host does not wait."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def fetched(x: Tensor) -> Tensor:
    """A copy on the CPU. From a GPU it arrives later, in pinned memory: synchronise before reading it."""
    if x.device.type != "cuda":
        return x
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


@contextmanager
def tf32() -> Iterator[None]:
    """In the block, products and convolutions on a GPU use TF32."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = True
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


@torch.no_grad()
def calibrate(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch-norm statistics from unlabelled images: without them, a random encoder is weaker than necessary.

    Plain averages over the batches' means and variances; the encoder is left in train mode.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # a plain average over the batches
    encoder.train()
    for x in batches:
        encoder(x)


def scaling(train: Array) -> Callable[[Array], Array]:
    """A function that scales features to mean 0 and variance 1, and vectors to a mean length of 1, over train.

    It makes only one copy of its argument, because features may fill half of the memory.
    """
    mean, std = train.mean(axis=0), train.std(axis=0)
    std = np.where(std > 1e-6, std, 1)  # a feature that is constant in train carries no information

    def centered(x: Array) -> Array:
        y: Array = x - mean
        y /= std
        return y

    length = np.linalg.norm(centered(train), axis=1).mean()

    def scaled(x: Array) -> Array:
        y = centered(x)
        y /= length
        return y

    return scaled


def standardize(train: Array, *others: Array) -> list[Array]:
    """Scale all arrays by the scaling of the first."""
    scaled = scaling(train)
    return [scaled(x) for x in (train, *others)]


def linear_probe(x: Array, y: Labels, queries: list[Array], grid: Sequence[float]) -> tuple[list[Labels], float]:
    """Logistic regression on x (n, D), y (n,) → the predictions per query, and the C chosen from the ascending grid.

    `pick_C` chooses it on held-out samples; then all samples are fitted.
    """
    if x.shape[1] > len(x):  # the solution lies in the span of the samples: the same problem in n dimensions
        basis = np.linalg.qr(x.T)[0]
        x, queries = x @ basis, [q @ basis for q in queries]
    C = pick_C(x, y, grid)
    model = LogisticRegression(x, y).fit(C)
    return [model.predict(q) for q in queries], C


def pick_C(x: Array, y: Labels, grid: Sequence[float]) -> float:
    """The C with the most right predictions on held-out samples; among equals, the one with the least cross-entropy.

    Each stratified fifth is held out in turn; from 500 samples on, one fifth is enough. Below 5 labels per class
    nothing can be held out, and the middle of the grid is taken.
    """
    classes, counts = np.unique(y, return_counts=True)
    if len(y) < FOLDS * len(classes):
        return grid[len(grid) // 2]
    fold = np.empty(len(y), np.int64)
    for c, count in zip(classes, counts, strict=True):
        fold[y == c] = np.arange(count) % FOLDS
    right, loss = np.zeros(len(grid)), np.zeros(len(grid))
    for f in range(FOLDS if len(y) < ENOUGH else 1):
        rest = LogisticRegression(x[fold != f], y[fold != f])
        held = (fold == f) & np.isin(y, rest.classes)
        for i, C in enumerate(grid):
            rest.fit(C, tolerance=1e-5)
            right[i] += (rest.predict(x[held]) == y[held]).sum()
            loss[i] += rest.cross_entropy(x[held], y[held])
    return grid[int(np.lexsort((loss, -right))[0])]


def knn(x: Array, y: Labels, query: Array, k: int, temperature: float) -> Labels:
    """Weighted vote of the k nearest by cosine, weights exp(similarity / temperature) (Wu et al., 2018)."""
    bank = F.normalize(torch.from_numpy(x), dim=1)
    labels = torch.from_numpy(y)
    votes = []
    for q in torch.split(F.normalize(torch.from_numpy(query), dim=1), 1024):
        similarity, nearest = (q @ bank.T).topk(min(k, len(bank)), dim=1)
        weights = (similarity / temperature).softmax(dim=1)  # in proportion to exp, without its overflow
        tally = torch.zeros(len(q), int(labels.max()) + 1)
        votes.append(tally.scatter_add_(1, labels[nearest], weights).argmax(dim=1))
    return torch.cat(votes).numpy()


def shots_of(y: Labels, wanted: Sequence[int]) -> list[int]:
    """The wanted label counts that every class has."""
    return [n for n in wanted if n <= np.unique(y, return_counts=True)[1].min()]


def label_samples(y: Labels, shots: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Label samples: positions of `shots` labels per class, or all of a smaller class; the same for every encoder."""
    for draw in range(draws):
        rng = np.random.default_rng([seed, shots, draw])
        yield np.concatenate([rng.permutation(np.flatnonzero(y == c))[:shots] for c in np.unique(y)])


def retrieval(a: Array, b: Array) -> float:
    """Share of images whose nearest view (cosine) in b is their own: a (n, D), b (n, D), row i the same image."""
    similarity = F.normalize(torch.from_numpy(a), dim=1) @ F.normalize(torch.from_numpy(b), dim=1).T
    return float((similarity.argmax(dim=1) == torch.arange(len(a))).float().mean())


def between_images(views: Array) -> float:
    """The share of the features' variance between images, rather than between views of one image; views: (V, n, D).

    tr(S_b S_t⁻¹) / D, S_b the covariance of the images' means and S_t that of all: the mean over the directions of
    linear discriminant analysis, where each image is a class (Pillai's trace, 1955, over its size). No linear map of
    the features changes it. 1: no view changes the features; 1/V: noise; 0: all are equal.
    """
    x = (views - views.mean(axis=(0, 1))).astype(np.float64)
    std = x.std(axis=(0, 1))
    x /= np.where(std > 1e-6 * std.max(), std, np.inf)  # a constant feature distinguishes nothing
    V, n, D = x.shape
    total = np.einsum("vni,vnj->ij", x, x, optimize=True) / (V * n)
    means = x.mean(axis=0)
    return float(np.trace(np.linalg.solve(total + 1e-4 * np.eye(D), means.T @ means / n)) / D)
