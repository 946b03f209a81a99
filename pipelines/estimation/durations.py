"""Durations and sizes as people say them."""


def spoken(seconds: float) -> str:
    """`40 s`, `3.6 min`, `12 min`, `3.5 h`, `4.2 days`."""
    for limit, unit, size, digits in (
        (90, "s", 1, 0),
        (10 * 60, "min", 60, 1),
        (90 * 60, "min", 60, 0),
        (48 * 3600, "h", 3600, 1),
    ):
        if seconds < limit:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{(days := seconds / 86400):,.{int(days < 10)}f} days"


def sized(count: float) -> str:
    """Bytes: `60 MB`, `1.2 GB`, `340 GB`."""
    if count < 950e6:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:,.{int(count < 20e9)}f} GB"
