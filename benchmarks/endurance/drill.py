"""`make drill-resume`: kill training runs with -9 at random moments, and start them again until they end.

Each is compared, bit by bit, to an undisturbed run: the encoder, the history, the method's whole state (teacher and
centre too) and the optimiser's. Half of the kills are timed from the start of the process, while it imports and reads
the checkpoint; half from its first new row, while it trains and saves.
"""

import json
import random
import shutil
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import torch
from torch import Tensor

from benchmarks.workspace import configure, start, workspace
from models.methods import METHODS
from pipelines.reporting.tables import text
from serving.host.command import Parser

CLOCK = ("second", "wait", "memory")  # parts of the names of figures that depend on the machine
# Trains as `python -m pipelines.pretrain METHOD` does, and saves the whole state when it ends.
PROGRAM = """
import torch
from models import methods, optim
from pipelines import pretrain
from pipelines.project import stage

built = {}
def remembered(name, make):
    def wrapped(*a, **k):
        built[name] = make(*a, **k)
        return built[name]
    return wrapped

start.method = remembered("method", start.method)
optim.build = remembered("optimizer", optim.build)
name = sys.argv[1]
stage.run(f"pretrain@{name}", lambda: pretrain.main(name))
torch.save({k: v.state_dict() for k, v in built.items()}, stage.artifact(name, "final.pt"))
"""


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endurance.drill", description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--kills", type=int, default=20, help="kills per method (default: 20)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs per training run (default: 12)")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the random moments"
    )
    parser.add_argument("--compile", action="store_true", help="compile the training step (default: eager)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    rows = []
    with workspace() as folder:
        how = {"checkpoint_minutes": 0.001, "log_every": 1, "compile": given.compile}
        configure(
            folder,
            {f"pretrain.{k}": v for k, v in how.items()} | {f"{name}.epochs": given.epochs for name in given.methods},
        )
        for name in given.methods:
            rows.append(drill(folder, name, given.kills, draw))
            print(f"{name}: {rows[-1]}", flush=True)
    same = all(row[part] == "yes" for row in rows for part in PARTS)
    print(f"\n{given.epochs} epochs of digits, moments of seed {given.seed}, torch {torch.__version__}\n\n{text(rows)}")
    print(f"\nThe training runs are {'' if same else 'NOT '}bit-identical to the undisturbed ones.")
    if given.json:
        given.json.write_text(
            json.dumps({"seed": given.seed, "torch": torch.__version__, "rows": rows}, indent=2) + "\n"
        )
    sys.exit(not same)


PARTS = ("encoder", "history", "state", "optimiser")


def drill(folder: Path, name: str, kills: int, draw: random.Random) -> dict[str, str]:
    """Kill `kills` times, over as many training runs as needed; return what was hit, and which parts are identical."""
    log, scratch = folder / f"{name}.log", folder / ".scratch" / "pretrain" / name
    begin = time.monotonic()
    process = start(folder, PROGRAM, name, log=log)
    wait_for_a_row(process, scratch, (0, 0))
    startup = time.monotonic() - begin
    ended(process.wait(), log)
    training = time.monotonic() - begin - startup
    expected = outcome(folder, name)
    hit, runs, done = Counter[str](), 0, 0
    same = dict.fromkeys(PARTS, True)
    while done < kills:
        shutil.rmtree(folder / "artifacts" / "methods" / name)
        runs += 1
        while True:
            before = position(scratch)
            process = start(folder, PROGRAM, name, log=log)
            if done < kills:
                if late := draw.random() < 0.5:
                    wait_for_a_row(process, scratch, before)
                with suppress(TimeoutExpired):
                    process.wait(draw.uniform(0, training / 5 if late else startup))
                process.kill()
            if process.wait() != -9:
                ended(process.returncode, log)
                break
            done += 1
            if position(scratch) <= before:
                hit["start"] += 1
            else:
                hit["save" if any(scratch.glob(".[nsr]*")) else "step"] += 1
        found = outcome(folder, name)
        same = {part: same[part] and equal(found[part], expected[part]) for part in PARTS}
    figures = {"method": name, "steps": str(len(expected["history"])), "kills": str(done)}
    figures |= {f"in a {what}": str(hit[what]) for what in ("start", "step", "save")}
    return figures | {"training runs": str(runs)} | {part: "yes" if same[part] else "NO" for part in PARTS}


def ended(code: int, log: Path) -> None:
    if code:
        sys.exit(
            f"The training run ended with status {code}. Its log ends with:\n"
            + "\n".join(log.read_text().splitlines()[-20:])
        )


def wait_for_a_row(process: "Popen[bytes]", scratch: Path, before: tuple[int, int]) -> None:
    while position(scratch) <= before and process.poll() is None:
        with suppress(TimeoutExpired):
            process.wait(0.02)


def position(scratch: Path) -> tuple[int, int]:
    """The progress of an unfinished training run: its newest checkpoint and the number of its rows."""
    newest = max((int(path.name[5:]) for path in scratch.glob("step-*")), default=0)
    try:
        return newest, len((scratch / "history.jsonl").read_text().splitlines())
    except FileNotFoundError:  # not begun, or just ended
        return newest, 0


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """The results of a training run, by part."""
    place = folder / "artifacts" / "methods" / name
    final = torch.load(place / "final.pt", weights_only=True)
    rows = [json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()]
    return {
        "encoder": torch.load(place / "checkpoint.pt", weights_only=True)["weights"],
        "history": [{k: v for k, v in row.items() if not any(part in k for part in CLOCK)} for row in rows],
        "state": final["method"],
        "optimiser": final["optimizer"],
    }


def equal(a: Any, b: Any) -> bool:
    """Nested mappings and sequences with the same keys, values and bits; a tuple may come back as a list."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


if __name__ == "__main__":
    main()
