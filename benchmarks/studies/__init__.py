"""Questions that need many trainings: which ranking, which alarm, which precision."""
