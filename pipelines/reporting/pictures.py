"""What an encoder does to images, as images."""

import io
from collections.abc import Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models import start
from models.encoders import weights
from models.encoders.vit import ViT
from models.evaluation import attention
from models.method import Masking, Method, MethodParams, Pretraining
from pipelines.saving.pretrained import Pretrained

RATIOS = (0.5, 0.75, 0.9)
SHARE = 0.6  # of the attention's mass that a mask holds
TILE = 96  # px at most
Image = NDArray[np.uint8]  # (H, W, 4), transparent between the tiles


def mosaic(rows: Sequence[Sequence[Tensor | None]], lead: bool = False) -> Image:
    """Rows of tiles (3, S, S) in [0, 1], None for an empty place → one picture. lead: the first column stands apart."""
    side = min(TILE, next(t.shape[-1] for row in rows for t in row if t is not None))
    gap = max(1, side // 16)
    step, apart = side + gap, side // 4 if lead else 0
    canvas = np.zeros((len(rows) * step - gap, max(map(len, rows)) * step - gap + apart, 4), np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                left = j * step + (apart if j else 0)
                cell = canvas[i * step : i * step + side, left : left + side]
                cell[..., :3] = to_bytes(tile, side)
                cell[..., 3] = 255
    return canvas


def png(pixels: Image) -> bytes:
    """A PNG of it; a small picture is magnified in squares."""
    file = io.BytesIO()
    image = PIL.Image.fromarray(pixels)
    factor = max(1, 640 // image.width)
    image.resize((image.width * factor, image.height * factor), PIL.Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def to_bytes(tile: Tensor, side: int) -> NDArray[np.uint8]:
    fitted = F.adaptive_avg_pool2d(tile.float(), side) if tile.shape[-1] > side else resized(tile, side)
    return (fitted.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def resized(tile: Tensor, side: int) -> Tensor:
    return tile.float() if tile.shape[-1] == side else F.interpolate(tile.float()[None], side)[0]


@torch.inference_mode()
def reconstructions(
    method: Masking, images: Tensor, generator: torch.Generator, ratios: Sequence[float] = RATIOS
) -> dict[float, list[list[Tensor]]]:
    """uint8 (B, 3, S, S) → mask ratio → the masked images and their reconstructions.

    Predictions of normalised patches are given the mean and the standard deviation of the patch that they stand for,
    which a masked patch does not tell: as in the paper's figures. Visible patches are shown as they were.
    """
    method.eval()
    noise = method.noise(len(images), generator)
    trained, found = method.params, {}
    for ratio in ratios:
        method.params = replace(trained, mask_ratio=ratio)
        prediction, target, masked = method.reconstruct(images, noise)
        if trained.norm_pix:
            prediction = prediction * (target.var(dim=2, keepdim=True) + 1e-6).sqrt() + target.mean(2, keepdim=True)
        filled = pixels(method, torch.where(masked[:, :, None] > 0, prediction, target))
        found[ratio] = [list(hidden(images / 255, 1 - masked)), list(filled)]
    method.params = trained
    return found


def hidden(images: Tensor, shown: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], grey where shown (B, N), one number per patch, is 0."""
    grid = round(shown.shape[1] ** 0.5)
    mask = F.interpolate(shown.reshape(-1, 1, grid, grid), images.shape[-1])
    return images * mask + 0.5 * (1 - mask)


def pixels(method: Masking, patches: Tensor) -> Tensor:
    """Normalised patches (B, N, P²·3) → images (B, 3, S, S) in [0, 1]."""
    normalize, p, g = method.encoder.normalize, method.encoder.patch_size, method.encoder.grid
    x = patches.reshape(-1, g, g, p, p, 3).permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, g * p, g * p)
    return (x * normalize.std + normalize.mean).clamp(0, 1)


@torch.inference_mode()
def attended(encoder: ViT, images: Tensor) -> list[list[Tensor | None]]:
    """uint8 (B, 3, S, S) → two rows per image: it and the attention of each head, below the mask of each head."""
    maps = attention.attention(encoder, images)  # (B, heads, rows, columns)
    masks = attention.mass_mask(maps, SHARE)
    side = images.shape[-1]
    rows: list[list[Tensor | None]] = []
    for image, heads, chosen in zip(images / 255, maps, masks, strict=True):
        rows.append([image, *(heat(F.interpolate(h[None, None], side)[0, 0]) for h in heads)])
        rows.append([None, *(dimmed(image, F.interpolate(m[None, None].float(), side)[0]) for m in chosen)])
    return rows


def heat(values: Tensor) -> Tensor:
    """(S, S) of any scale → (3, S, S) in a colour map that is even to the eye."""
    scaled = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    coloured = mpl.colormaps["inferno"](scaled.numpy())[..., :3]
    return torch.from_numpy(coloured).permute(2, 0, 1)


def dimmed(image: Tensor, mask: Tensor) -> Tensor:
    """The image where the mask (1, S, S) is 1, hardly visible elsewhere."""
    return image * mask + (1 - mask) * (0.15 * image + 0.5)


def neighbours(queries: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k nearest by cosine, nearest first: (q, D), (n, D) → places in the bank (q, k)."""
    a, b = (F.normalize(torch.from_numpy(x), dim=1) for x in (queries, bank))
    return (a @ b.T).topk(min(k, len(b)), dim=1).indices.numpy()


@torch.inference_mode()
def seen(method: Method, images: Tensor, generator: torch.Generator) -> list[list[Tensor | None]]:
    """uint8 (B, 3, S, S) → a row an image: it, then the views that the method makes of it, masked where it masks."""
    drawn = method.views(images, method.draw(len(images), images.shape[-2], images.shape[-1], generator))
    views = [v for v in drawn if v.ndim == 4]
    if isinstance(method, Masking):
        visible, _ = method.split(drawn[1])
        shown = torch.zeros_like(drawn[1]).scatter_(1, visible, 1.0)
        views.append(hidden(views[0], shown))
    return [[image, *others] for image, *others in zip(images / 255, *views, strict=True)]


def restored(name: str, params: MethodParams, trained: Pretrained, size: int) -> Pretraining:
    """The method with its trained encoder, and head or decoder where the checkpoint has one; in eval mode."""
    method = start.method(name, params, size, (0.0,) * 3, (1.0,) * 3, 0)
    weights.load(method.encoder, trained.weights)
    method.load_state_dict(trained.kept, strict=False)
    return method.eval()
