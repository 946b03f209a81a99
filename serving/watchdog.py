"""Keep a server answering. TorchServe calls itself healthy while no worker answers, and gives up on dying workers.

A name is ready when its version has just answered a golden image correctly. For a name that is not ready, the watchdog
first kills the worker, so that TorchServe starts another; then it replaces all workers; at last it restarts the front
end, which serves the same versions again.
"""

import re
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import psutil

from serving import ServingError
from serving.client import Client
from serving.deploy import restore
from serving.host import loopback
from serving.rollout import served_file
from serving.rollout.golden_images import Golden
from serving.torchserve import ready
from serving.torchserve.management import Management
from serving.torchserve.upkeep import Upkeep
from serving.torchserve.watched import Watched, cpu_seconds, is_stopped
from serving.worker.metrics import exposition

if TYPE_CHECKING:
    from serving.torchserve.process import Server

TICK = 0.25  # s between two checks of the processes
PERIOD = 5.0  # s between two questions to a name that is ready; one that is not ready is asked at every tick
DEADLINE = 10.0  # s for an answer; a worker that neither answers nor computes for so long hangs
BUSY = 0.1  # of a core: a worker that computes more is busy, for example with large photographs; it then has 30 s
STARTUP = (
    60.0  # s for a worker to start, as in model-config.yaml; doubled each time a restart of the front end did not help
)
RENEWAL = timedelta(days=1)  # before the tokens expire, new ones are made
ANSWERS = re.compile(r'^ts_inference_latency_microseconds\{.*model_name="([^"]*)".*\} (\S+)$', re.MULTILINE)


class Watchdog:
    """Watches a running server, from `run` until `ended` is set or an exception such as KeyboardInterrupt comes."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.upkeep = Upkeep(server.runtime, self._say)
        # It remembers the addresses and tokens, so that the server still answers when its files are removed.
        self.runtime = self.upkeep.runtime
        self.management = Management(self.runtime)
        self.watched: dict[str, Watched] = {}
        self.vain = 0  # restarts of the front end since all names were ready
        self.pinged = time.monotonic()
        self.pinging: Future[None] | None = None
        self.restoring: Future[list[str]] | None = None
        self.golden: dict[str, Golden] = {}  # by the file name of the archive, which is its digest
        self.ended = Event()

    def report(self) -> ready.Report:
        """For every name: whether it is ready, since when, and if not, why."""
        return {
            each.name: {"ready": each.ready, "since": each.changed.isoformat(), "version": each.version.version}
            | ({} if each.ready else {"reason": each.reason})
            for each in list(self.watched.values())
        }

    def run(self) -> None:
        """Watch the server, and answer at the `ready_address`."""
        self.pool = ThreadPoolExecutor(16)
        metrics = partial(exposition, self.runtime.metrics)
        try:
            with (
                closing(self.upkeep),
                ready.serve(
                    self.runtime.address("ready"), self.report, metrics, lambda: list(self.upkeep.faults.values())
                ),
            ):
                while not self.ended.wait(TICK):
                    self.upkeep.look()
                    # A process may end meanwhile: the next check finds what to do.
                    with suppress(ServingError, OSError, psutil.NoSuchProcess):
                        self._look()
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        if reason := self._front_end():
            self._restart(reason)
            return
        if self.restoring and self.restoring.done():
            for line in [self.restoring.exception()] if self.restoring.exception() else self.restoring.result():
                self._say(str(line))
            self.restoring = None
        now = served_file.read(self.runtime).now
        self.watched = {name: self.watched.get(name) or Watched(name, version) for name, version in now.items()}
        for each in self.watched.values():
            if each.version != now[each.name]:  # the deployer changed it, after asking it
                each.version, each.asked = now[each.name], time.monotonic() - PERIOD
            self._look_at(each)
        if self.watched and all(each.ready for each in self.watched.values()):
            self.vain = 0
        if self.runtime.expiry() - datetime.now(UTC) < RENEWAL:
            self.management.rotate("inference")
            self.management.rotate("management")

    def _front_end(self) -> str:
        """Why the front end must be restarted; empty when it need not."""
        code = self.server.process.poll()
        if code is not None:
            return f"ended by itself with status {code}"
        if psutil.Process(self.server.process.pid).status() == psutil.STATUS_STOPPED:
            return "was stopped"
        if self.pinging is None or self.pinging.done():
            if self.pinging and not self.pinging.exception():
                self.pinged = time.monotonic()
            self.pinging = self.pool.submit(self._ping)
        silent = time.monotonic() - self.pinged
        return f"was silent for {silent:.0f} s" if silent > DEADLINE else ""

    def _ping(self) -> None:
        # Without a token, because a refusal is an answer too.
        loopback.request("GET", f"{self.runtime.address('inference')}/ping", timeout=DEADLINE)

    def _look_at(self, each: Watched) -> None:
        now, label = time.monotonic(), each.version.version
        if stopped := [pid for pid in each.workers if is_stopped(pid)]:
            self._kill(each, stopped, "was stopped")
        known = [pid for pid, of in each.workers.items() if of == label]
        if known and not any(psutil.pid_exists(pid) for pid in known):
            each.workers, each.asking = {}, None  # an earlier answer no longer counts
            each.turn(False, "its workers died")
        if each.asking and each.asking.done():
            error = each.asking.exception()
            each.turn(error is None, str(error or "").rstrip("."))
            each.asking = None
            if each.ready:
                each.answered, each.helps = now, 0
        if each.asking is None and (not each.ready or now - each.asked > PERIOD):
            each.asked = now
            each.asking = self.pool.submit(self._ask, each)
        late = each.asking is not None and now - each.asked > DEADLINE
        if late:
            each.turn(False, f"no answer in {DEADLINE:g} s")
        if each.ready or self.restoring:
            return
        if late and each.helps == 0:
            self._unwedge(each)
        elif now - max(each.answered, each.helped) > STARTUP * 2 ** min(self.vain, 6):
            self._help(each)

    def _ask(self, each: Watched) -> None:
        """Raises ServingError when the golden image is not answered correctly."""
        each.workers = self._workers(each.name)
        each.others = self._answers(each.name)
        each.computed = {pid: cpu_seconds(pid) for pid in each.workers}
        client = Client.of(self.runtime)
        client.timeout = 2 * DEADLINE
        file = each.version.file
        if file not in self.golden:
            self.golden[file] = Golden.read(self.runtime.models / file)
        self.golden[file].compare(client, f"{each.name}/{each.version.version}", first=1)
        each.workers = self._workers(each.name)

    def _workers(self, name: str) -> dict[int, str]:
        """Process → the version of the name that it has loaded."""
        standing = self.management.versions(name).items()
        return {w["pid"]: label for label, about in standing for w in about["workers"] if w["status"] == "READY"}

    def _answers(self, name: str) -> list[str]:
        """TorchServe's counters of its answers under a name."""
        text = loopback.request("GET", f"{self.runtime.address('metrics')}/metrics", timeout=DEADLINE).text
        return [total for named, total in ANSWERS.findall(text) if named == name]

    def _unwedge(self, each: Watched) -> None:
        """Kill the workers that got the question, unless they are busy: they compute, or answer other clients."""
        silent = [pid for pid, label in each.workers.items() if label == each.version.version]
        computed = max((cpu_seconds(pid) - each.computed.get(pid, 0.0) for pid in silent), default=0.0)
        busy = computed > BUSY * (time.monotonic() - each.asked)
        if silent and not busy and each.others == self._answers(each.name):
            self._kill(each, silent, each.reason)

    def _help(self, each: Watched) -> None:
        label = each.version.version
        if label in self.management.versions(each.name) and each.helps <= 1:
            self._say(f"{each.name}: {each.reason}. Its workers are replaced.")
            self.management.renew(each.name, label)
            each.helps, each.helped = 2, time.monotonic()
        else:
            self._restart(f"does not serve {each.name} ({each.reason})")

    def _kill(self, each: Watched, workers: list[int], reason: str) -> None:
        self._say(f"{each.name}: {reason}. Its worker is killed.")
        for pid in workers:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        each.helps, each.helped = 1, time.monotonic()

    def _restart(self, reason: str) -> None:
        self._say(f"TorchServe {reason}. It is restarted.")
        for each in self.watched.values():
            each.turn(False, f"TorchServe {reason}")
        try:
            self.server.restart()
            self.restoring = self.pool.submit(restore, self.runtime)
        except (ServingError, OSError) as error:
            self._say(str(error))
            time.sleep(min(60, 2**self.vain))
        self.vain += 1
        self.watched = {}
        self.pinged = time.monotonic()

    def _say(self, line: str) -> None:
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}", file=sys.stderr, flush=True)
