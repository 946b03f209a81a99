"""Augmentation: `draw` makes the random numbers of each image on the CPU, `augment` applies them on any device.

Only `draw` is random, so a seed gives the same views on any device. `augment` is a pure function of the images and the
drawn numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from models.views import colour
from models.views.blur import BlurKernel, gaussian_blur
from models.views.chance import bernoulli, random_boxes, squares, uniform, whole_numbers
from models.views.distortion import cut_out, gaussian_noise, quarter_turn, sobel
from models.views.resample import Filter, resized_crop, resized_crop_bytes, rotate

BLENDS = (colour.brightness, colour.contrast, colour.saturation)
CONTRAST, SATURATION = 1, 2  # their places there
ORDERS = torch.tensor(list(permutations(range(3))))  # (6, 3)
CUTOUT = 0.5  # side of the square that Cutout hides, as a share of the image's side: 16 of 32 px, as in its paper
SEEDS = 2**24  # float32 holds the whole numbers below it
PROBABILITIES = ("flip", "jitter", "grey", "blur", "solarize", "quarter_turn", "sobel", "noise", "cutout")
CACHE = 128 * 3 * 32 * 32  # values of the views that a CPU makes together, so that they stay in its cache
LARGE = 64  # px; from this side on, a CPU works image by image


@dataclass(frozen=True)
class ViewParams:
    """How one view is augmented. Probabilities in [0, 1]; `area` is the share of the image that a crop covers."""

    area: tuple[float, float]  # share of the image that a crop covers, from lowest to highest
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of a crop, from lowest to highest
    filter: Filter = "bicubic"  # how crops are resized
    flip: float = 0.5  # probability of a horizontal flip
    rotation: float = 0.0  # largest rotation to either side, degrees
    jitter: float = 0.0  # probability of changing the colours
    strengths: tuple[float, float, float, float] = (0.0,) * 4  # strengths: brightness, contrast, saturation, hue
    grey: float = 0.0  # probability of turning the view grey
    blur: float = 0.0  # probability of a blur
    blur_kernel: BlurKernel = "tenth"  # which kernel the blur uses: a tenth of the side, or Pillow's
    sigma: tuple[float, float] = (0.1, 2.0)  # width of the blur from lowest to highest, px
    solarize: float = 0.0  # probability of solarising
    quarter_turn: float = 0.0  # probability of a rotation by 90, 180 or 270 degrees
    sobel: float = 0.0  # probability of a Sobel filter
    noise: float = 0.0  # probability of Gaussian noise, of a standard deviation of a tenth of the range
    cutout: float = 0.0  # probability of Cutout: a grey square of half the side, in part outside

    def __post_init__(self) -> None:
        check_area("area", self.area)
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is {list(self.aspect)}. Allowed: [low, high] with 0 < low <= high")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma is {list(self.sigma)}. Allowed: [low, high] with 0 < low <= high")
        if min(self.strengths) < 0 or self.strengths[3] > 0.5:
            raise ValueError(f"strengths is {list(self.strengths)}. Allowed: 0 or more, and at most 0.5 for the hue")
        if self.rotation < 0:
            raise ValueError(f"rotation is {self.rotation}. Allowed: 0 or more degrees")
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, a probability. Allowed: 0 to 1")


def check_area(name: str, area: tuple[float, float]) -> None:
    """Raises ValueError when this is no range of shares."""
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"{name} is {list(area)}. Allowed: [low, high] with 0 < low <= high <= 1")


class Draws(NamedTuple):
    """The random numbers of n images. An operation that is off for an image has a number that changes nothing."""

    box: Tensor  # top, left, height, width in px (n, 4)
    flip: Tensor  # 0 or 1 (n,)
    angle: Tensor  # degrees (n,)
    factors: Tensor  # of brightness 0, contrast 1, saturation 2 (n, 3); 1 where there is no jitter
    order: Tensor  # which of these comes first, second, third (n, 3)
    hue: Tensor  # share of the circle, 0 where there is no jitter (n,)
    turn: Tensor  # after how many of the three the hue is turned (n,)
    grey: Tensor  # 0 or 1 (n,)
    sigma: Tensor  # px, 0 where there is no blur (n,)
    solarize: Tensor  # 0 or 1 (n,)
    quarters: Tensor  # quarter turns, 0 to 3 (n,)
    sobel: Tensor  # 0 or 1 (n,)
    noise: Tensor  # the seed of the noise, 0 where there is none (n,)
    cutout: Tensor  # row and column of the middle as shares of the side, and 0 or 1 (n, 3)

    @classmethod
    def of(cls, rows: Tensor) -> "Draws":
        """From what `draw` made, (n, 23)."""
        parts = torch.split(rows, [4, 1, 1, 3, 3, *[1] * 8, 3], dim=1)
        return cls(*(part[:, 0] if part.shape[1] == 1 else part for part in parts))


# For the health checks, the same for every method and data set. No flip: a mirrored digit is another sign.
HEALTH_CHECK = ViewParams(area=(0.5, 1.0), flip=0.0, jitter=0.8, strengths=(0.4, 0.4, 0.4, 0.1))


def draw(n: int, height: int, width: int, p: ViewParams, generator: Generator) -> Tensor:
    """float32 (n, 23): the random numbers of n images of this size, one row per image, in the columns of `Draws`.

    The last four operations were added later. They take no number where they are off, so older draws stay the same.
    """
    jittered = bernoulli(n, p.jitter, generator)
    factors = [uniform(n, max(0.0, 1 - strength), 1 + strength, generator) for strength in p.strengths[:3]]
    drawn = Draws(
        box=random_boxes(n, height, width, p.area, p.aspect, generator),
        flip=bernoulli(n, p.flip, generator),
        angle=uniform(n, -p.rotation, p.rotation, generator),
        factors=torch.where(jittered[:, None], torch.stack(factors, dim=1), 1.0),
        order=ORDERS[torch.randint(6, (n,), generator=generator)],
        hue=uniform(n, -p.strengths[3], p.strengths[3], generator) * jittered,
        turn=torch.randint(4, (n,), generator=generator),
        grey=bernoulli(n, p.grey, generator),
        sigma=uniform(n, *p.sigma, generator) * bernoulli(n, p.blur, generator),
        solarize=bernoulli(n, p.solarize, generator),
        quarters=whole_numbers(n, p.quarter_turn, 4, generator),
        sobel=whole_numbers(n, p.sobel, 2, generator),
        noise=whole_numbers(n, p.noise, SEEDS, generator),
        cutout=squares(n, p.cutout, generator),
    )
    return torch.column_stack(drawn).float()


def augment_batch(images: Tensor, draws: Tensor, size: int, p: ViewParams) -> Tensor:
    """All images together: two products of matrices, the rest element by element."""
    d = Draws.of(draws)
    x = resized_crop(images.to(draws.dtype).div_(255), d.box, d.flip > 0, size, p.filter)
    if p.rotation:
        x = rotate(x, d.angle)
    if p.quarter_turn:
        for times in (1, 2, 3):
            x = only(d.quarters == times, partial(quarter_turn, times=times), x)
    if p.jitter:
        x = only((d.factors != 1).any(dim=1) | (d.hue != 0), jitter, x, d.factors, d.order, d.hue, d.turn)
    if p.grey:
        x = only(d.grey > 0, colour.greyed, x)
    if p.blur:
        x = only(d.sigma > 0, lambda x, sigma: gaussian_blur(x, sigma, p.blur_kernel, p.sigma[1]), x, d.sigma)
    if p.solarize:
        x = only(d.solarize > 0, colour.solarize, x)
    if p.sobel:
        x = only(d.sobel > 0, sobel, x)
    if p.noise:
        x = only(d.noise > 0, gaussian_noise, x, d.noise)
    return cut_out(x, d.cutout, CUTOUT) if p.cutout else x


def augment_image(image: Tensor, draws: Tensor, size: int, p: ViewParams) -> Tensor:
    """One image (1, 3, H, W), resized as bytes, then step by step what was drawn (1, 23)."""
    d = Draws.of(draws)
    x = resized_crop_bytes(image, d.box, d.flip > 0, size, p.filter).to(draws.dtype).div_(255)
    if p.rotation:
        x = rotate(x, d.angle)
    x = quarter_turn(x, int(d.quarters)) if p.quarter_turn else x
    factors, order = d.factors[0].tolist(), d.order[0].tolist()
    hue, turn, grey, sigma, solarize = (column.item() for column in (d.hue, d.turn, d.grey, d.sigma, d.solarize))
    for place in range(4):
        if place == turn and hue:
            x = colour.hue(x, hue)
        if place < 3 and (factor := factors[i := int(order[place])]) != 1:
            x = BLENDS[i](x, factor)
    if grey:
        x = colour.greyed(x)
    if sigma:
        x = gaussian_blur(x, d.sigma, p.blur_kernel, p.sigma[1])
    if solarize:
        x = colour.solarize(x)
    if p.sobel and d.sobel.item():
        x = sobel(x)
    if p.noise and d.noise.item():
        x = gaussian_noise(x, d.noise)
    return cut_out(x, d.cutout, CUTOUT) if p.cutout else x


def augment(images: Tensor, draws: Tensor, size: int, p: ViewParams) -> Tensor:
    """uint8 (B, 3, H, W) and draws (B, 23) → views (B, 3, size, size) in [0, 1], in the type of the draws.

    Compiled, or on a GPU, the whole batch is one graph without a wait for the host: an operation is done to every image
    and kept where it was drawn. Else, on a CPU, it is done only there, and what is at hand stays in cache: small images
    go piece by piece, large ones one by one, resized as bytes, which rounds to grey levels (not in float64).
    """
    if whole(images):
        return augment_batch(images, draws, size, p)
    if max(size, *images.shape[2:]) >= LARGE and draws.dtype == torch.float32:
        return torch.cat(
            [augment_image(i, d, size, p) for i, d in zip(torch.split(images, 1), torch.split(draws, 1), strict=True)]
        )
    n = max(1, CACHE // (3 * size * size))
    return torch.cat(
        [augment_batch(i, d, size, p) for i, d in zip(torch.split(images, n), torch.split(draws, n), strict=True)]
    )


def whole(x: Tensor) -> bool:
    """Whether a batch is augmented in one piece: on a GPU, and where it is compiled."""
    return torch.compiler.is_compiling() or x.device.type != "cpu"


def only(chosen: Tensor, operation: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """`operation(x, *parameters)` where `chosen` (B,), x elsewhere."""
    if whole(x):
        return torch.where(image_wise(chosen), operation(x, *parameters), x)
    index = chosen.nonzero()[:, 0]
    if len(index) == 0:
        return x
    some = operation(x.index_select(0, index), *(parameter.index_select(0, index) for parameter in parameters))
    return x.index_copy_(0, index, some)


def jitter(x: Tensor, factors: Tensor, order: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
    """Brightness, contrast and saturation by their factors (B, 3) in each image's own order (B, 3), and the hue by its
    shift (B,) when `turn` (B,) of them are done."""
    own = factors.gather(1, order.long())
    pixel, mean = (1 - own) * (order == SATURATION), (1 - own) * (order == CONTRAST)
    for place in range(4):
        x = only(turn == place, colour.hue, x, image_wise(shift))
        if place < 3:
            x = colour.blend(x, *(image_wise(share[:, place]) for share in (own, pixel, mean)))
    return x


def image_wise(values: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, 1)."""
    return values[:, None, None, None]


def view(images: Tensor, size: int, p: ViewParams, generator: Generator) -> Tensor:
    """uint8 images (B, 3, H, W) → one view of each, float32 in [0, 1], (B, 3, size, size)."""
    draws = draw(images.shape[0], images.shape[2], images.shape[3], p, generator)
    return augment(images, draws.to(images.device), size, p)
