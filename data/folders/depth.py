"""Find the images of more than 8 bits, and decide which of their values become 0 and 255.

`prepare.range: auto` takes the lowest and the highest value, leaving aside at either end 0.1 % of the pixels of each
image and 1 % of the images (at least one of three). Where this spans three quarters of 0 to 1, 255, 1,023, 4,095,
16,383 or 65,535, the range is that. At most 1,000 images are measured.
"""

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from data import DataError
from data.decoding.deep import samples, strips
from data.decoding.image_file import Unusable, checked, opened, refusing
from data.pool import contents, each
from data.progress import Progress

Range = tuple[float, float]

MEASURED = 1_000  # images
PIXELS, IMAGES = 0.001, 0.01  # left aside at either end
TOPS, SPANNED = (1, 255, 1023, 4095, 16383, 65535), 0.75
HEADER, PNG, TIFF = 26, b"\x89PNG\r\n\x1a\n", (b"II", b"MM")


def find(root: Path, paths: Sequence[str], workers: int | None = None) -> dict[str, str]:
    """The images of more than 8 bits → what their values are. The headers of PNG and TIFF files alone are read."""
    candidates = [path for path in paths if _may_be_deep(f"{root}/{path}")]
    found = zip(candidates, each(root, candidates, _samples, workers), strict=True) if candidates else []
    return {path: kind for path, kind in found if kind}


def measure(root: Path, deep: Mapping[str, str], workers: int | None = None) -> Range | None:
    """The range of the images that `find` found; None where there is nothing between their lowest and highest value.

    Raises DataError where integers of 16 bits, other integers and floats are mixed: one range cannot suit them.
    """
    paths = defaultdict[str, list[str]](list)
    for path, kind in sorted(deep.items()):
        paths[kind].append(path)
    found = {kind: _range(root, of, workers) for kind, of in paths.items()}
    ranges = {kind: of for kind, of in found.items() if of}
    if len(ranges) > 1:
        each_kind = (f"{len(paths[kind]):,} of {kind} ({shown(of)})" for kind, of in sorted(ranges.items()))
        raise DataError(
            f"The folder {root} mixes images of more than 8 bits whose values mean different things: "
            f"{' and '.join(each_kind)}. Convert them to one kind, or set prepare.range in params.yaml to the "
            "[low, high] that suits all."
        )
    return next(iter(ranges.values()), None)


def shown(of: Range) -> str:
    """ "684 to 1,208" """
    return " to ".join(f"{end:,.0f}" if end.is_integer() else f"{end:,.4g}" for end in map(float, of))


def _may_be_deep(path: str) -> bool:
    with suppress(OSError), open(path, "rb", buffering=0) as file:  # pathlib would take twice as long
        header = file.read(HEADER)
        return header.startswith(TIFF) or (header.startswith(PNG) and header[24:25] == b"\x10")
    return False


def _samples(root: Path, path: str) -> str | None:
    try:
        with (root / path).open("rb") as file, refusing(file.read(HEADER)):
            return samples(opened(file))
    except (OSError, Unusable):
        return None  # decoding it will say why


def _range(root: Path, paths: Sequence[str], workers: int | None) -> Range | None:
    chosen = random.Random(0).sample(paths, min(MEASURED, len(paths)))
    with Progress(len(chosen), "measure values", "images") as progress:
        ends = []
        for found in each(root, chosen, _ends, workers):
            ends += [found] if found else []
            progress.advance()
    if not ends:
        return None
    lows, highs = map(sorted, zip(*ends, strict=True))
    aside = math.ceil(IMAGES * len(ends)) if len(ends) > 2 else 0
    low, high = lows[aside], highs[-1 - aside]
    if low >= high:  # each image has one value
        low, high = lows[0], highs[-1]
    for top in TOPS:
        if low >= 0 and high <= top and high - low >= SPANNED * top:
            return 0.0, float(top)
    return (low, high) if 0 < high - low < math.inf else None


def _ends(root: Path, path: str) -> Range | None:
    """The values that 0.1 % of the pixels lie below and above, infinite ones and NaN left out."""
    try:
        with refusing(data := contents(root / path)):
            image = checked(data)
            image.load()
            (of,) = strips(image, data, image.height)
    except (OSError, Unusable):
        return None
    finite = of[np.isfinite(of)]
    if not finite.size:
        return None
    low, high = np.quantile(finite, [PIXELS, 1 - PIXELS], method="nearest")
    return float(low), float(high)
