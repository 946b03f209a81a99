"""From a folder of images to a served encoder: `python -m pipelines.flow [FOLDER] [--recipe NAME]`.

Settles what to train on, lets Prefect run what DVC says has changed, deploys the champion, and says how it ended.
"""

import gc
import sys
import time
from pathlib import Path

from data import DataError
from pipelines.orchestration import stop
from pipelines.orchestration.stage_process import environment
from pipelines.orchestration.warm.python import WarmPython
from pipelines.project import ConfigError, stage
from pipelines.project.stage import StageError
from serving.host.command import Parser, command


def main() -> None:
    began = time.monotonic()
    parser = Parser(prog="python -m pipelines.flow", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="a folder of images; without it, the data set that params.yaml names"
    )
    parser.add_argument("--recipe", metavar="NAME", help="a file of recipes/ to start from; for a FOLDER: photos")
    parser.add_argument("--name", help="the name of the data set made from FOLDER; without it, the folder's own name")
    parser.add_argument("--methods", metavar="NAMES", help="the methods to pretrain, such as simclr,mae")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change a value of params.yaml; may be repeated"
    )
    given = parser.parse_args()
    if given.name and not given.folder:
        parser.error("The option --name needs a FOLDER. Give the folder whose images get this name.")
    stop.install()
    if sys.stdout.isatty():
        print("Starting …")  # the board comes some seconds later
    with command(ConfigError, DataError, StageError), stage.locked("flow"), WarmPython(environment()) as python:
        # Imported here, while the warm Python makes its own imports on another core.
        from pipelines.orchestration.run import run  # noqa: PLC0415
        from pipelines.project.recipes import Change  # noqa: PLC0415

        changes = [*map(Change.parse, given.set)]
        if given.methods:
            changes.append(Change("methods", given.methods.split(",")))
        run(python, given.folder, given.recipe, given.name, changes, began)
    gc.freeze()  # what was imported need not be collected before the process ends: that takes a second


if __name__ == "__main__":
    main()
