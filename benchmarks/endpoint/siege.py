"""`make siege`: half an hour of every kind of request while versions change, then 50 kills of all workers and 5 of the
front end under the same load.

The server is that of `make serve`, in its own process. The clients run on the same cores. The encoders are small and
have random weights, so that each version has its own vectors. Recovery is the time from the kill to the first right
answer to new requests, each over its own connection and given up after a second: a request that a worker had just
taken when it died is never answered. Memory is flat when the median of the last fifth is at most 5 % above that of the
second fifth; the first fifth is the warm-up.
"""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from benchmarks.endpoint.mixed_clients import Crowd
from benchmarks.endpoint.processes import Observer, java, workers
from benchmarks.endpoint.request_samples import Truth
from benchmarks.endpoint.throughput import packed, pictures, promote
from benchmarks.report import markdown
from models.encoders.resnet import ResNetParams
from serving import ServingError
from serving.host.command import Parser
from serving.host.runtime import Runtime
from serving.rollout import archive, served_file
from serving.worker.encoder import Encoder

SERVE = """
import sys
from pathlib import Path
from serving.deploy import deploy
from serving.host.runtime import Runtime
from serving.torchserve.process import Server
from serving.watchdog import Watchdog
with Server(Runtime(Path(sys.argv[1])), free_ports=True) as server:
    deploy(Path(sys.argv[2]), server.runtime)
    print("serving", flush=True)
    Watchdog(server).run()
"""
NAME, VERSIONS = "bench-encoder", ("1", "2", "3")
SIZE = 16
EVERY = 10.0  # s between two changes of what is served
FLAT = 5.0  # %
WORKER, FRONT_END = 5.0, 20.0  # s for p99 of the recovery


def prepare(folder: Path) -> tuple[dict[str, Path], Truth]:
    """By version what is promoted; and what is right, from ONNX Runtime and the packed files."""
    files, promoted, embeddings = pictures(SIZE, "PNG"), {}, {}
    for version in VERSIONS:
        place = folder / version
        (place / "unpacked").mkdir(parents=True)
        mar = packed(ResNetParams(arch="resnet10", width=16, stem="small/2"), SIZE, place / "encoder.mar", version)
        promoted[version] = promote(place, mar, version)
        archive.unpack(mar, place / "unpacked")
        one = Encoder(place / "unpacked")
        tensors = np.stack([one.preprocess(file) for file in files])
        embeddings[version] = one.session.run(None, {"images": tensors})[0]
    truth = Truth(files, tensors, embeddings)
    rows = range(len(files))
    pairs = [(a, b) for a in VERSIONS for b in VERSIONS if a != b]
    assert all(
        truth.fault([i], a, embeddings[b][[i]]) for a, b in pairs for i in rows
    )  # every image distinguishes them
    return promoted, truth


@contextmanager
def running(folder: Path, promoted: Path) -> Iterator[Runtime]:
    """The server under its watchdog, which writes to watchdog.log."""
    with (folder / "watchdog.log").open("w") as log:
        command = [sys.executable, "-c", SERVE, str(folder / "run"), str(promoted)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
            assert process.stdout is not None
            try:
                if not process.stdout.readline():
                    sys.exit((folder / "watchdog.log").read_text())
                yield Runtime(folder / "run")
            finally:
                process.terminate()


def storm(crowd: Crowd, promoted: dict[str, Path], seconds: float) -> int:
    """Change what is served, by turns forth and back, for so long; how often."""
    end, others = time.monotonic() + seconds, cycle(VERSIONS[1:])
    while time.monotonic() < end:
        time.sleep(EVERY)
        option = ["--rollback"] if crowd.changes % 2 else ["--promoted", str(promoted[next(others)])]
        crowd.changes += 1
        crowd.serves = None
        command = [sys.executable, "-m", "serving.deploy", "--run", str(crowd.runtime.folder), *option]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        crowd.serves = served_file.read(crowd.runtime).now[NAME].version
    return crowd.changes


def recoveries(crowd: Crowd, victims: Callable[[], Sequence[int]], kills: int) -> list[float]:
    """Seconds from each kill to the next right answer."""
    found, generator = [], np.random.default_rng(0)
    for _ in range(kills):
        ready(crowd.runtime)
        time.sleep(generator.uniform(0, 1))
        processes, begin = [psutil.Process(pid) for pid in victims() if psutil.pid_exists(pid)], time.monotonic()
        for process in processes:
            process.kill()
        found.append(answered(crowd) - begin)
    ready(crowd.runtime)
    return found


def answered(crowd: Crowd) -> float:
    """When one of the requests that are made from now on is answered."""
    file, embedded = crowd.truth.files[0], dict[str, Any]()

    def ask() -> bool:
        answer = requests.post(crowd.url, data=file, headers=crowd.headers(Content_Type="image/png"), timeout=1)
        embedded.update(answer.json())
        return answer.ok

    until(ask)
    crowd.right([0], embedded["version"], np.asarray(embedded["embeddings"], np.float32), (crowd.serves, crowd.changes))
    return time.monotonic()


def ready(runtime: Runtime) -> None:
    """Wait until the watchdog says so."""
    until(lambda: requests.get(f"{runtime.address('ready')}/ready", timeout=10).ok)


def until(true: Callable[[], bool]) -> None:
    """Ask again and again, also where nobody answers; two minutes are the end."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with suppress(ServingError, requests.RequestException, ValueError, KeyError):
            if true():
                return
        time.sleep(0.02)
    sys.exit("The server did not come back within 120 s.")


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endpoint.siege", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="of mixed requests (default: 30)")
    parser.add_argument("--kills", type=int, default=50, help="of all workers (default: 50)")
    parser.add_argument("--front-end-kills", type=int, default=5, help="of the front end (default: 5)")
    given = parser.parse_args()
    folder = Path(".scratch/siege").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    promoted, truth = prepare(folder)
    with running(folder, promoted[VERSIONS[0]]) as runtime:
        ready(runtime)
        observer = Observer(runtime, NAME, VERSIONS[0])
        observer.start()
        with Crowd(runtime, NAME, truth, VERSIONS[0]) as first:
            changes = storm(first, promoted, 60 * given.minutes)
        observer.ended.set()
        observer.join()
        with Crowd(runtime, NAME, truth, first.serves) as second:
            worker = recoveries(second, lambda: list(workers(runtime, NAME, second.serves).values()), given.kills)
            front_end = recoveries(second, lambda: [java(runtime)], given.front_end_kills)
    memory = observer.table()
    kills = [recovery("both workers at once", worker, WORKER), recovery("front end", front_end, FRONT_END)]
    percentiles = np.percentile(first.ledger.latencies, (50, 95, 99)) * 1000
    latency = {f"good requests, p{p}, ms": float(ms) for p, ms in zip((50, 95, 99), percentiles, strict=True)}
    print(f"{given.minutes:g} minutes, {changes} changes of what is served")
    for table in (counted(first), [latency], memory, kills, counted(second)):
        print(f"\n{markdown(table)}")
    found = {
        "wrong answers": first.ledger.wrong,
        "requests without the answer that is due": first.ledger.lost,
        "deaths": observer.deaths,
        "wrong answers after kills": second.ledger.wrong,
    }
    broken = [f"{len(some)} {what}, the first: {some[0]}" for what, some in found.items() if some]
    broken += [f"The {m['process']} grew by {m['growth, %']:.1f} %." for m in memory if not m["growth, %"] <= FLAT]
    broken += [f"A {k['killed']} was back after {k['p99, s']:.1f} s." for k in kills if k["p99, s"] > k["at most"]]
    print(f"\n{', '.join(f'{len(some)} {what}' for what, some in found.items())}")
    if broken:
        sys.exit("\n".join(broken))


def counted(crowd: Crowd) -> list[dict[str, Any]]:
    return [{"requests": k, "outcome": outcome, "n": n} for (k, outcome), n in sorted(crowd.ledger.outcomes.items())]


def recovery(killed: str, seconds: list[float], most: float) -> dict[str, Any]:
    """p99 of so few is the largest."""
    times = {"median, s": statistics.median(seconds), "p99, s": max(seconds)}
    return {"killed": killed, "n": len(seconds)} | times | {"at most": most}


if __name__ == "__main__":
    main()
