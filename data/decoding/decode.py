"""Bytes of an image file → RGB uint8 at the stored size.

Packed beside the TorchServe handler: standard library, numpy and Pillow only. Pillow is imported where an image is
decoded, so that training can read the specification without it.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from data.decoding.deep import narrowed, samples
from data.decoding.image_file import Unusable, checked, refusing

if TYPE_CHECKING:
    from PIL import Image

MAX_SIZE = 4096
FILTERS = ("bilinear", "bicubic", "lanczos", "box")  # Pillow's Image.Resampling, in small letters
ALLOWED = {"filter": FILTERS, "resize": ("shorter side",), "crop": ("centre",)}
UPRIGHT = {  # EXIF orientation → the Image.Transpose that turns the stored pixels upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Preprocess:
    """How a stored image is made: the shorter side resized to `size` pixels, the centre square kept.

    range: the values of images of more than 8 bits that become 0 and 255; None refuses such images.
    """

    size: int
    filter: str = "bilinear"
    resize: str = "shorter side"
    crop: str = "centre"
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"size is {self.size!r}. Allowed: a whole number from 1 to {MAX_SIZE}")
        for key, allowed in ALLOWED.items():
            if (value := getattr(self, key)) not in allowed:
                raise ValueError(f"{key} is {value!r}. Allowed: {', '.join(allowed)}")
        if self.range is not None:
            ends = self.range if isinstance(self.range, list | tuple) else ()
            numbers = tuple(float(end) for end in ends if type(end) in (int, float))
            if not (len(ends) == len(numbers) == 2 and 0 < numbers[1] - numbers[0] < math.inf):
                raise ValueError(f"range is {self.range!r}. Allowed: two finite numbers, the smaller one first")
            object.__setattr__(self, "range", numbers)  # JSON knows lists, and whole numbers

    def to_json(self) -> str:
        """The specification as one JSON object, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; ValueError on a missing or unknown key or a value that is not allowed."""
        spec: Any = json.loads(text)
        known = {field.name for field in fields(cls)}
        if not isinstance(spec, dict) or (wrong := known ^ set(spec)):
            found = ", ".join(sorted(wrong)) if isinstance(spec, dict) else text[:40]
            raise ValueError(f"preprocess has missing or unknown keys: {found}; it needs {sorted(known)}")
        return cls(**spec)

    def fit(self, image: "Image.Image") -> NDArray[np.uint8]:
        """RGB image of any size → (3, size, size), C-contiguous.

        Resizing only the centre square equals resizing all and then cropping (to 1/255), and a 1 × 10,000 strip
        costs no more than any other image. The box sits on whole pixels, so that an image whose shorter
        side is `size` already keeps its exact values.
        """
        from PIL.Image import Resampling  # noqa: PLC0415

        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        square = image.resize((self.size, self.size), Resampling[self.filter.upper()], box=box)
        return np.ascontiguousarray(np.asarray(square, dtype=np.uint8).transpose(2, 0, 1))

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """Bytes of an image file → (3, size, size), C-contiguous; raises Unusable."""
        return self.fit(read(data, self.range))


def read(data: bytes, range: tuple[float, float] | None = None) -> "Image.Image":
    """Bytes of a JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF → upright RGB image; raises Unusable."""
    from PIL import Image  # noqa: PLC0415

    with refusing(data):
        image = checked(data)
        deep = samples(image)
        if deep and not range:
            reason = f"its values are {deep}, and no range says which of them become 0 and 255; convert it to 8 bits"
            raise Unusable("more than 8 bits", reason)
        image.load()
        orientation = _orientation(image)
        rgb = _rgb(narrowed(image, data, range) if deep and range else image)
        return rgb.transpose(Image.Transpose[UPRIGHT[orientation]]) if orientation in UPRIGHT else rgb


def _orientation(image: "Image.Image") -> Any:
    # ImageOps.exif_transpose would reject a good photo because of a broken EXIF block.
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:
        return None


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image  # noqa: PLC0415

    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError:
        raise Unusable("unreadable", f"no conversion from mode {image.mode} to RGB") from None
