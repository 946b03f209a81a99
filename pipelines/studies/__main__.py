"""Run studies: `python -m pipelines.studies S1 M1 …` or `--all`. What is finished is not run again.

Each cell is a run of the pipeline's own stages with other params. The results go to studies/report.html and MLflow.
"""

import time

from data import DataError
from pipelines.orchestration import stop
from pipelines.orchestration.stage_process import environment
from pipelines.orchestration.warm.python import WarmPython
from pipelines.project import ConfigError, stage
from pipelines.project.stage import StageError
from serving.host.command import Parser, command

MOST_SEEDS = 1000


def main() -> None:
    began = time.monotonic()
    parser = Parser(prog="python -m pipelines.studies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies, such as S1; without them, all are listed")
    parser.add_argument("--all", action="store_true", help="run every study")
    parser.add_argument("--scale", metavar="NAME", help="quick, small or gpu; without it: small")
    parser.add_argument("--dataset", metavar="NAME", help="your own images, data/raw/NAME, with your params.yaml")
    parser.add_argument("--seeds", type=int, metavar="N", help="training runs per level, when the scale's are too few")
    given = parser.parse_args()
    if given.seeds is not None and not 1 <= given.seeds <= MOST_SEEDS:
        parser.error(f"The option --seeds is {given.seeds}. Allowed: 1 to {MOST_SEEDS}.")
    if given.names and given.all:
        parser.error("Give names of studies, or --all, not both.")
    if given.scale and given.dataset:
        parser.error("The option --scale chooses a recipe, and --dataset takes your own. Give one of them.")
    with command(ConfigError, DataError, StageError):
        if not (given.names or given.all):
            from pipelines.studies import listing  # noqa: PLC0415

            print(listing.text())
            return
        stop.install()
        with stage.locked("flow"), WarmPython(environment()) as python:
            # Imported here, while the warm Python makes its own imports on another core.
            from pipelines.studies import experiment  # noqa: PLC0415

            experiment.run(python, given.names, given.scale, given.dataset, given.seeds, began)


if __name__ == "__main__":
    main()
