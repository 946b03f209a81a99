"""Questions that need many training runs: which ranking, which alarm, which precision."""
