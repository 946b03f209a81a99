"""Small images, how they are encoded, and what is read from the file."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.decoding.decode import read
from data.decoding.image_file import Unusable

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:160:4, 0:160:4], 90), axis=-1).astype(np.uint8)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(data: bytes, range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    image = read(data, range)
    assert image.mode == "RGB"
    return np.asarray(image)


def kind(data: bytes) -> str:
    with pytest.raises(Unusable) as caught:
        read(data)
    assert str(caught.value)
    return caught.value.kind
