"""The verdict where there are no labels: is an image found again by a second view of it more often than by chance?"""

from collections.abc import Mapping
from dataclasses import dataclass

from models.diagnosis import HOPELESS
from pipelines.evaluation.approach import title
from pipelines.evaluation.difference import of_shares
from pipelines.evaluation.verdict import Figure
from pipelines.evaluation.words import percent

CAVEATS = (
    "There are no labels, so no accuracy was measured.",
    "Finding second views is only a stand-in for accuracy. It put 37 encoders in nearly the same order as "
    "accuracy at 5 labels per class did (docs/explanation/evaluation.md).",
)
MEASURE = "Ten labelled images per class are enough to measure its accuracy."


@dataclass(frozen=True)
class SecondViews:
    """Percent of the test images that are found again; images: that were compared; initial: by the starting weights."""

    champion: float
    random: float
    pixels: float
    images: int
    initial: float | None = None

    @property
    def beats_random(self) -> bool:
        """Beyond the noise of the images."""
        return of_shares(self.champion, self.random, self.images).beyond_images > 0

    @property
    def beats_pixels(self) -> bool:
        """The same of raw pixels."""
        return of_shares(self.champion, self.pixels, self.images).beyond_images > 0


def figures(champion: str, v: SecondViews) -> tuple[Figure, ...]:
    """The champion beside what has learnt nothing."""
    return (
        Figure(title(champion), percent(v.champion), f"of {v.images:,} test images find their second view"),
        Figure("Random encoder", percent(v.random), "of the same images, without any training"),
        Figure("Raw pixels", percent(v.pixels), "of the same images, without any encoder"),
    )


def continued(champion: str, v: SecondViews) -> tuple[str, ...]:
    """What continuing a pretraining brought, where the champion started from weights."""
    if v.initial is None:
        return ()
    name, figures = title(champion), f"{percent(v.champion)} of second views against {percent(v.initial)}"
    clear = of_shares(v.champion, v.initial, v.images).beyond_images
    effect = {1: f"helped {name}", -1: f"hurt {name}", 0: f"made no clear difference to {name}"}[clear]
    return (f"Continuing pretraining {effect}, compared with the starting weights ({figures}).",)


def judged(champion: str, v: SecondViews, diagnosis: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The answer, and what to do: use it only above a random encoder and raw pixels, beyond the noise of the images."""
    name = title(champion)
    if not v.beats_random or diagnosis.get("name") in HOPELESS:
        return (
            f"Do not use {name}: nothing shows that it learnt anything.",
            ("Follow the advice of its health check, or train longer or on more images.",),
        )
    if not v.beats_pixels:
        return (
            f"Do not rely on {name} yet: it is better than a random encoder, but not clearly better than raw pixels.",
            (MEASURE,),
        )
    return (
        f"{name} learnt to recognise images: it beats a random encoder and raw pixels.",
        (f"Look at {name}'s nearest neighbours. If they are what you call similar, use it.", MEASURE),
    )
