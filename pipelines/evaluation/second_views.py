"""The verdict where there are no labels: is an image found again by a second view of it more often than by chance?"""

from collections.abc import Mapping
from dataclasses import dataclass

from models.diagnosis import HOPELESS
from pipelines.evaluation.difference import of_shares


@dataclass(frozen=True)
class SecondViews:
    """Percent of the images of test that are found again; images: that were compared."""

    champion: float
    random: float
    pixels: float
    images: int


def figures(champion: str, v: SecondViews) -> str:
    """What was found, and how much it proves."""
    return (
        f"There are no labels, so that nothing here says what the encoders are good for: of {v.images:,} images of "
        f"test {champion} finds {v.champion:.1f} % again by a second view, a random encoder {v.random:.1f} %, raw "
        f"pixels {v.pixels:.1f} %. This ranked 37 encoders of labelled images nearly as five labels a class do "
        f"(docs/explanation/evaluation.md)."
    )


def advice(champion: str, v: SecondViews, diagnosis: Mapping[str, str]) -> str:
    """What to do: use it only where it is above a random encoder and raw pixels, beyond the noise of the images."""
    over_random, over_pixels = (of_shares(v.champion, x, v.images).beyond_images > 0 for x in (v.random, v.pixels))
    if not over_random or diagnosis.get("name") in HOPELESS:
        return (
            f"Nothing was learnt that shows: do not use {champion}. Do what its diagnosis says, or train longer or on "
            "more images."
        )
    if not over_pixels:
        return (
            f"{champion} has learnt more than a random encoder, but raw pixels do as well here: do not rely on it "
            "before ten labelled images a class have measured it."
        )
    return (
        f"Look at {champion}'s nearest neighbours: if they are what you would call similar, use it. Ten labelled "
        "images a class would be enough to measure it."
    )
