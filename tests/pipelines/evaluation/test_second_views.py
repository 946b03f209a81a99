"""The verdict of images without labels, of given figures."""

import pytest

from pipelines.evaluation.second_views import SecondViews, advice, figures

SOUND = {"name": "healthy"}


@pytest.mark.parametrize(
    ("champion", "random", "pixels", "diagnosis", "sentence"),
    [
        (80.0, 13.0, 41.0, "healthy", "Look at simclr's nearest neighbours"),
        (80.0, 13.0, 41.0, "undertrained", "Look at simclr's nearest neighbours"),
        (24.5, 12.9, 41.4, "healthy", "simclr has learnt more than a random encoder, but raw pixels do as well here"),
        (42.0, 12.9, 41.4, "healthy", "simclr has learnt more than a random encoder, but raw pixels do as well here"),
        (12.0, 12.9, 5.0, "healthy", "Nothing was learnt that shows: do not use simclr"),
        (14.0, 12.9, 5.0, "healthy", "Nothing was learnt that shows: do not use simclr"),
        (80.0, 13.0, 41.0, "complete collapse", "Nothing was learnt that shows: do not use simclr"),
    ],
)
def test_advice_follows_from_the_figures(
    champion: float, random: float, pixels: float, diagnosis: str, sentence: str
) -> None:
    assert advice("simclr", SecondViews(champion, random, pixels, 400), {"name": diagnosis}).startswith(sentence)


def test_few_images_prove_nothing() -> None:
    """20 of 36 images against 12: 22 points, and their interval is 22.5."""
    assert "do not use simclr" in advice("simclr", SecondViews(100 * 20 / 36, 100 * 12 / 36, 0, 36), SOUND)
    assert "nearest neighbours" in advice("simclr", SecondViews(100 * 20 / 36, 100 * 12 / 36, 0, 360), SOUND)


def test_the_figures_stand_beside_those_of_what_has_learnt_nothing() -> None:
    sentence = figures("simclr", SecondViews(24.5, 12.9, 41.4, 1000))
    assert "of 1,000 images of test simclr finds 24.5 % again by a second view, a random encoder 12.9 %" in sentence
    assert "raw pixels 41.4 %" in sentence
