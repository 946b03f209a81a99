"""The two-view SimCLR recipe by lightly, torchvision v2 and kornia, as their documentation writes it.

Each has the form in which it is fastest and in use: lightly goes through Pillow images, torchvision v2 through uint8
tensors, kornia through batches of floats. All resize bilinearly, their default; ours is bicubic.
"""

import sys
from collections.abc import Callable
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor, nn

# PyPI's torchvision registers operators that torch's CPU build beside it does not have; nothing here calls them.
sys.modules["torchvision._meta_registrations"] = ModuleType("torchvision._meta_registrations")

import kornia.augmentation as K  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402
from torchvision.transforms import v2  # noqa: E402


def peers(images: Tensor, size: int, strength: float, blur: float) -> dict[str, Callable[[], list[Tensor]]]:
    """By library what makes two views, floats in [0, 1], of these uint8 images (B, 3, H, W)."""
    s, kernel = strength, 2 * (size // 20) + 1
    pillow = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    floats = images.float() / 255

    simclr = SimCLRTransform(input_size=size, cj_strength=s, gaussian_blur=blur, normalize=None)

    def lightly() -> list[Tensor]:
        return [torch.stack(view) for view in zip(*(simclr(image) for image in pillow), strict=True)]

    per_image = v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)], p=0.8),
            v2.RandomGrayscale(0.2),
            *([v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=blur)] if blur else []),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    def torchvision() -> list[Tensor]:
        return [torch.stack([per_image(image) for image in images]) for _ in range(2)]

    batched = nn.Sequential(
        K.RandomResizedCrop((size, size)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=0.8),
        K.RandomGrayscale(p=0.2),
        *([K.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=blur)] if blur else []),
    )

    def kornia() -> list[Tensor]:
        return [batched(floats) for _ in range(2)]

    return {"lightly": lightly, "torchvision v2": torchvision, "kornia": kornia}
