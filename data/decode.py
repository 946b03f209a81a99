"""Bytes of an image file → RGB uint8 at the stored size.

This file is also packed as it stands beside the TorchServe handler: standard library, numpy and Pillow only.
Pillow is imported where an image is decoded, so that training can read the specification without it.
"""

import io
import json
import logging
import warnings
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own warning limit: 256 MiB of RGB
MAX_SIZE = 4096
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
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

# Without a handler Pillow's remarks about odd files would reach standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Unusable(Exception):
    """An image that cannot be used; the message is the reason.

    kind: "empty", "not an image", "corrupt", "truncated", "bomb" or "unreadable".
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)  # both, so that it survives pickling between processes
        self.kind, self.reason = kind, reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Preprocess:
    """How a stored image is made: the shorter side resized to `size` pixels, the centre square kept."""

    size: int
    filter: str = "bilinear"
    resize: str = "shorter side"
    crop: str = "centre"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"size is {self.size!r}; allowed is a whole number from 1 to {MAX_SIZE}")
        for key, allowed in ALLOWED.items():
            if (value := getattr(self, key)) not in allowed:
                raise ValueError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")

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
        return self.fit(read(data))


def read(data: bytes) -> "Image.Image":
    """Bytes of a JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF → upright RGB image; raises Unusable."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    if not data:
        raise Unusable("empty", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data)
        except Unusable:
            raise
        except UnidentifiedImageError:
            if data.startswith(SIGNATURES):
                raise Unusable("corrupt", "the header cannot be read") from None
            raise Unusable("not an image", f"not one of {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError as error:  # the same check by Pillow, at twice the limit
            raise Unusable("bomb", f"{str(error).split(' exceeds')[0]} is over {MAX_PIXELS:,}") from None
        except MemoryError:
            raise Unusable("unreadable", "not enough memory to decode it") from None
        except Exception as error:  # decoders raise nearly anything on bytes they did not expect
            cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _riff_is_short(data)
            kind = "truncated" if cut else "corrupt"
            raise Unusable(kind, " ".join(str(error).split()) or type(error).__name__) from None


def _decode(data: bytes) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415

    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Unusable("bomb", f"Image size ({image.width} × {image.height} pixels) is over {MAX_PIXELS:,}")
    image.load()
    orientation = _orientation(image)
    rgb = _rgb(image)
    return rgb.transpose(Image.Transpose[UPRIGHT[orientation]]) if orientation in UPRIGHT else rgb


def _orientation(image: "Image.Image") -> Any:
    # ImageOps.exif_transpose would reject a sound photo for its broken EXIF block.
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:
        return None


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError:
        raise Unusable("unreadable", f"no conversion from mode {image.mode} to RGB") from None


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey (H, W) to 8 bits: integers are 16-bit (65535 = 257 × 255), floats in [0, 1] or else [0, 255]."""
    values = np.nan_to_num(grey.astype(np.float32))
    if grey.dtype.kind in "iu":
        values /= 257
    elif values.max() <= 1:
        values *= 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _riff_is_short(data: bytes) -> bool:
    # The WebP decoder does not say why it failed, but its container states its own length.
    return data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data)
