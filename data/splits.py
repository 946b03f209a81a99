"""Which images train, validate and test: what the folders say first, then stratified by label."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

ORDER = ("train", "val", "test")
EXTRA = "extra"  # images that train, and that are never moved to val or test


def assign(given: Sequence[str | None], val: float, test: float) -> tuple[list[str], dict[str, float], str]:
    """The splits that folders give → (one split per image, the fractions to take from train, a sentence about it).

    given: per image its folder's split, EXTRA or None. An image beside split folders trains. A validation folder
    without a test folder is the test: the public sets name it so, and a test may not choose anything.
    """
    named = {split for split in given if split}
    splits = [split or "train" for split in given]
    source = "train" if "train" in named else "all"
    if not named & {"val", "test"}:
        return splits, {"val": val, "test": test}, _drawn(source, val=val, test=test)
    if "test" not in named:
        splits = ["test" if split == "val" else split for split in splits]
        return splits, {"val": val}, f"the val folder is the test, and {_drawn('train', val=val)}"
    if "val" not in named:
        return splits, {"val": val}, _drawn("train", val=val)
    return splits, {}, "nothing is drawn"


def _drawn(source: str, **fractions: float) -> str:
    shares = [f"{name} ({100 * part:.4g} %)" for name, part in fractions.items() if part]
    drawn = [f"{' and '.join(shares)} {'are' if shares[1:] else 'is'} drawn from {source}"] if shares else []
    return ", ".join([*drawn, *(f"no {name}" for name, part in fractions.items() if not part)])


def draw(labels: Sequence[str | None], keys: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
    """One split per image. Each label (None counts as one) is divided by largest remainder; the rest trains.

    keys: one distinct string per image, the hash of its content. Each label's images are ordered by the hash of
    (seed, key), so that the choice depends neither on file names nor on the other labels.
    A label with at least three images has at least one in every split whose fraction is not zero.
    """
    shares = {"train": 1 - sum(fractions.values()), **fractions}
    strata: dict[str | None, list[int]] = defaultdict(list)
    for image, label in enumerate(labels):
        strata[label].append(image)
    splits = [""] * len(labels)
    for images in strata.values():
        images.sort(key=lambda image: hashlib.sha256(f"{seed}:{keys[image]}".encode()).digest())
        drawn = [split for split, count in apportion(len(images), shares).items() for _ in range(count)]
        for image, split in zip(images, drawn, strict=True):
            splits[image] = split
    return splits


def apportion(n: int, shares: dict[str, float]) -> dict[str, int]:
    """n shared out by largest remainder, ties to the first; from n = 3 every share above zero has one."""
    quotas = {name: round(n * share, 9) for name, share in shares.items()}  # 10 × 0.3 is not 3.0000000000000004
    counts = {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: n - sum(counts.values())]:
        counts[name] += 1
    for name, share in shares.items():
        if n >= len(ORDER) and share > 0 and counts[name] == 0:
            counts[max(counts, key=lambda other: counts[other])] -= 1
            counts[name] = 1
    return counts
