"""Images of more than 8 bits are read by a range, or refused where none is given."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from data.decoding.decode import Preprocess, read
from data.decoding.deep import STRIP
from data.decoding.image_file import Unusable
from tests.data.wide import SIDE, png, spread, tiff


def test_alpha_is_composited_by_all_of_its_bits_and_not_by_the_range() -> None:
    grey = spread(0, 4095, "<u2", n=1)[0]
    half = np.full_like(grey, 32896)  # 128 · 257
    expected = (np.rint(grey / 4095 * 255) * 128 + 255 * 127) / 255
    for image in (np.stack([grey, half], axis=-1), np.stack([grey, grey, grey, half], axis=-1)):
        found = np.asarray(read(png(image), (0, 4095)))
        assert np.abs(found - expected[..., None]).max() <= 1
    colours = np.stack([grey, grey, grey, half], axis=-1)
    assert np.abs(np.asarray(read(tiff(colours, alpha=2), (0, 4095))) - expected[..., None]).max() <= 1


@pytest.mark.parametrize("form", [{"planes": True}, {"planes": True, "deflated": True}, {"alpha": 1}])
def test_16_bit_colours_in_a_rare_form_are_refused(form: dict[str, Any]) -> None:
    colours = spread(0, 65535, "<u2", n=1, channels=4 if "alpha" in form else 3)[0]
    with pytest.raises(Unusable, match="16-bit colours are stored in a rare way; convert it to 8 bits"):
        read(tiff(colours, **form), (0, 65535))


@pytest.mark.parametrize("order", "<>")
def test_where_zero_is_white_the_image_is_no_negative(order: str) -> None:
    grey = spread(0, 65535, f"{order}u2", n=1)[0]
    found = read(tiff(~grey, white_is_zero=True), (0, 65535))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(read(tiff(grey), (0, 65535))))
    with pytest.raises(Unusable, match="its floats say that zero is white"):
        read(tiff(spread(0, 1, f"{order}f4", n=1)[0], white_is_zero=True), (0, 1))


def test_a_large_deep_image_is_mapped_strip_by_strip_to_the_same_values() -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (3000, 700), dtype=np.uint16)
    assert grey.size > STRIP
    for values in (grey, np.stack([grey[:1600], grey[1000:2600], grey[1400:]], axis=-1)):
        found = np.asarray(read(png(values), (0, 65535)))
        wanted = np.rint(values / 257).astype(np.uint8)
        np.testing.assert_array_equal(found, wanted if values.ndim == 3 else wanted[..., None].repeat(3, axis=-1))


@pytest.mark.parametrize("data", [png(spread(0, 65535, "<u2", n=1)[0]), tiff(spread(0, 1, "<f4", n=1)[0])])
def test_an_encoder_that_saw_none_refuses_them_in_a_sentence(data: bytes) -> None:
    with pytest.raises(Unusable, match="no range says which of them become 0 and 255; convert it to 8 bits") as caught:
        Preprocess(SIDE)(data)
    assert caught.value.kind == "more than 8 bits"
    assert Preprocess(SIDE, range=(0, 65535))(data).dtype == np.uint8


def test_the_range_survives_json() -> None:
    for given in (None, (684, 1208), (0.5, 2.25)):
        preprocess = Preprocess(SIDE, range=given)
        assert Preprocess.from_json(preprocess.to_json()) == preprocess
        assert Preprocess(**json.loads(json.dumps(asdict(preprocess)))) == preprocess


@pytest.mark.parametrize(
    "given", [(5, 5), (9, 1), (0, float("nan")), (-1e308, 1e308), (0,), (0, 1, 2), "ab", 7, (0, True)]
)
def test_a_range_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="Allowed: two finite numbers, the smaller one first"):
        Preprocess(SIDE, range=given)
