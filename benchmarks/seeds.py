"""`python -m benchmarks.seeds 0 1 2`: the line up to the probes once a seed, and the figures' mean ± sd over the seeds.

A seed decides the split, the first weights, the views and the label draws. params.yaml is put back at the end.
"""

import argparse
import re
import subprocess
import sys
from statistics import mean, stdev

from models.methods import METHODS
from pipelines import config, flow, results, table

SHOWN = ("linear_1", "linear_5", "linear_10", "linear_all", "knn_all", "retrieval")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__)
    parser.add_argument("seeds", nargs="+", type=int)
    seeds = parser.parse_args().seeds
    before = config.PARAMS.read_text()
    runs = []
    try:
        for seed in seeds:
            config.PARAMS.write_text(re.sub(r"^seed: .*", f"seed: {seed}", before, flags=re.MULTILINE))
            if subprocess.run([sys.executable, "-m", flow.__name__], check=False).returncode:
                sys.exit(f"the flow failed with seed {seed}")
            runs.append(results.read().figures)
    finally:
        config.PARAMS.write_text(before)
    order = [*METHODS, *(f"random-{m}" for m in METHODS), "pixels"]
    rows = [{"encoder": who} | {k: spread([run[who][k] for run in runs]) for k in SHOWN} for who in order]
    print(f"\nmean ± sd over {len(seeds)} seeds, each the mean of its label draws\n\n{table.text(rows)}")


def spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main()
