"""After a run: how far off its estimate was."""

import json
import time
from collections.abc import Mapping

from pipelines.estimation.durations import spoken
from pipelines.project import stage

HISTORY = stage.SCRATCH / "estimates.jsonl"
CLOSE = 0.05  # of the time: so exact an estimate was right


def compared(seconds: float, stages: Mapping[str, float] | None = None) -> str:
    """A sentence: `From the plan on: estimated 4 min, took 5 min (25 % longer).` Empty where nothing was estimated.

    seconds: of the run until now. What went before the estimate was made is not counted. stages: the seconds that
    each stage took; both are added to `.scratch/estimates.jsonl`.
    """
    try:
        estimate = json.loads(stage.ESTIMATE.read_text(encoding="utf-8"))
        estimated, made = float(estimate["seconds"]), float(estimate["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    took = seconds - max(0.0, made - (time.time() - seconds))
    if took <= 0 or estimated <= 0:
        return ""
    row = {
        "made": made,
        "estimated": estimated,
        "took": took,
        "stages": {name: [estimate["stages"].get(name), of] for name, of in (stages or {}).items()},
    }
    with HISTORY.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    off = took / estimated - 1
    how = "as estimated" if abs(off) < CLOSE else f"{100 * abs(off):.0f} % {'longer' if off > 0 else 'shorter'}"
    return f"From the plan on: estimated {spoken(estimated)}, took {spoken(took)} ({how})."
