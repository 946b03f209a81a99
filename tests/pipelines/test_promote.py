"""Which reading ranks the methods."""

import pytest

from pipelines.promote import score
from pipelines.stage import StageError

FIGURES = {"val_linear_5": 91.0, "val_finetune_5": 93.5, "val_linear_all": 98.0, "val_finetune_all": 97.0}


def test_the_better_of_frozen_and_fine_tuned_counts() -> None:
    assert score(FIGURES, "best_5") == (93.5, "finetune")
    assert score(FIGURES, "best_all") == (98.0, "linear")
    assert score(FIGURES, "finetune_all") == (97.0, "")
    assert score({"val_retrieval": 40.0}, "retrieval") == (40.0, "")


def test_a_figure_that_the_data_do_not_give_is_a_sentence() -> None:
    with pytest.raises(StageError, match=r"promote.metric is best_10, and val_linear_10 was not measured: not every"):
        score(FIGURES, "best_10")
