"""`make fuzz`: send thousands of broken requests to both servers.

Every answer must be one that openapi.yaml describes, with a status below 500, because no server is overloaded. The same
processes must live at the end and answer golden images correctly. Failing requests are kept in tests/serving/corpus.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.endpoint.throughput import CASES, packed, promote, second
from benchmarks.report import markdown
from serving.client import Client
from serving.deploy import deploy
from serving.host.command import Parser
from serving.host.runtime import Runtime
from serving.rollout.golden_images import Golden
from serving.torchserve.process import Server

PYTHON = Path(".scratch/fuzzing/bin/python")  # where hypothesis and schemathesis are
NAME = "bench-encoder"


def attacked(runtime: Runtime, examples: int, seed: int) -> dict[str, Any]:
    """The answers, by kind of request."""
    command = [str(PYTHON), "-m", "benchmarks.endpoint.fuzzing.attack", runtime.address("inference"), NAME]
    done = subprocess.run(
        [*command, "--examples", str(examples), "--seed", str(seed)],
        env=os.environ | {"TOKEN": runtime.token("inference")}, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def living() -> set[tuple[int, float]]:
    """The id and the start time of every child process, and of their children."""
    family = psutil.Process().children(recursive=True)
    return {(each.pid, each.create_time()) for each in family if each.status() != psutil.STATUS_ZOMBIE}


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endpoint.fuzz", description=__doc__)
    parser.add_argument(
        "--examples", type=int, default=20_000, help="requests, for both servers together (default: 20000)"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    of, size, _ = CASES["resnet10 w16, 16 px, PNG"]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        mar = packed(of, size, folder / "encoder.mar")
        promoted = promote(folder, mar)
        first = stack.enter_context(Server(Runtime(folder / "first"), free_ports=True)).runtime
        deploy(promoted, first)
        servers = {"TorchServe": first, "FastAPI": stack.enter_context(second(folder / "second", promoted))}
        before = living()
        found = {server: attacked(runtime, given.examples // 2, given.seed) for server, runtime in servers.items()}
        died = before - living()
        rows = [row(server, kind, of["statuses"]) for server, kinds in found.items() for kind, of in kinds.items()]
        print(markdown(rows))
        total = sum(each["requests"] for each in rows)
        print(f"\n{total:,} requests; {len(before) - len(died)} of {len(before)} processes still live.")
        wrong = [f"{server}: {of['wrong']}; it is kept in {of['kept']}" for server, kinds in found.items()
                 for of in kinds.values() if of["wrong"]]  # fmt: skip
        if wrong or died:
            sys.exit("\n".join(wrong) or "A process died.")
        for runtime in servers.values():
            print(
                f"golden images: off by {Golden.read(mar).compare(Client.of(runtime), NAME):.0e} of the largest entry"
            )


def row(server: str, kind: str, statuses: dict[str, int]) -> dict[str, Any]:
    """One row of the table."""
    answers = ", ".join(f"{n:,} × {status}" for status, n in sorted(statuses.items()))
    return {"server": server, "kind": kind, "requests": sum(statuses.values()), "answers": answers}


if __name__ == "__main__":
    main()
