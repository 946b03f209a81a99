"""The CPU cores of this machine, and how a flow shares them among its stages."""

import os

AT_ONCE = 3  # stages, at most


def count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def side_by_side() -> int:
    """Stages that a flow runs at once: more wait for each other's cores."""
    return min(AT_ONCE, 1 + count())


def threads() -> int:
    """Of each of them."""
    return max(1, count() // side_by_side())
