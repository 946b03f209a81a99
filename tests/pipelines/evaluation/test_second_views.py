"""The verdict of images without labels, of given figures."""

import pytest

from pipelines.evaluation.second_views import SecondViews, figures, judged

SOUND = {"name": "healthy"}
USEFUL = "SimCLR learnt to recognise images: it beats a random encoder and raw pixels."
AS_PIXELS = "Do not rely on SimCLR yet: it is better than a random encoder, but not clearly better than raw pixels."
USELESS = "Do not use SimCLR: nothing shows that it learnt anything."


@pytest.mark.parametrize(
    ("champion", "random", "pixels", "diagnosis", "sentence"),
    [
        (80.0, 13.0, 41.0, "healthy", USEFUL),
        (80.0, 13.0, 41.0, "undertrained", USEFUL),
        (24.5, 12.9, 41.4, "healthy", AS_PIXELS),
        (42.0, 12.9, 41.4, "healthy", AS_PIXELS),
        (12.0, 12.9, 5.0, "healthy", USELESS),
        (14.0, 12.9, 5.0, "healthy", USELESS),
        (80.0, 13.0, 41.0, "complete collapse", USELESS),
    ],
)
def test_the_answer_follows_from_the_figures(
    champion: float, random: float, pixels: float, diagnosis: str, sentence: str
) -> None:
    answer, todo = judged("simclr", SecondViews(champion, random, pixels, 400), {"name": diagnosis})
    assert answer == sentence
    assert todo


def test_few_images_prove_nothing() -> None:
    """20 of 36 images against 12: 22 points, and their interval is 22.5."""
    assert judged("simclr", SecondViews(100 * 20 / 36, 100 * 12 / 36, 0, 36), SOUND)[0] == USELESS
    assert judged("simclr", SecondViews(100 * 20 / 36, 100 * 12 / 36, 0, 360), SOUND)[0] == USEFUL


def test_the_figures_stand_beside_those_of_what_has_learnt_nothing() -> None:
    assert [str(figure) for figure in figures("simclr", SecondViews(24.5, 12.9, 41.4, 1000))] == [
        "SimCLR: 24.5 % (of 1,000 test images find their second view).",
        "Random encoder: 12.9 % (of the same images, without any training).",
        "Raw pixels: 41.4 % (of the same images, without any encoder).",
    ]
