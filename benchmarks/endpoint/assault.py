"""`python -m benchmarks.endpoint.assault`: 20 minutes on each server in which one request in five is an attack.

The tokens change every minute. The same good clients ask alone first.

The encoder is a ViT-S/16 at 224 px with random weights, which takes images of 16 bits too. The clients run on the same
cores. One after another come: a JPEG of too many scans, one of 8 (11 are allowed), the largest 16-bit PNG, a form
whose parts share a name, a form in chunks, a body that comes slowly, a stranger's large body that never ends, and
gRPC. A good request goes through the client's retries; it is lost when it gets no 200.
"""

import io
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import requests
from PIL import Image

from benchmarks.endpoint.mixed_clients import Crowd
from benchmarks.endpoint.request_samples import Truth
from benchmarks.endpoint.siege import counted, ready, running
from benchmarks.endpoint.throughput import packed, pictures, promote, second
from benchmarks.report import markdown
from data.decoding.decode import Preprocess
from models.encoders.vit import ViTParams
from serving.client import Client
from serving.host.command import Parser
from serving.host.runtime import Runtime
from serving.rollout import archive
from serving.worker.encoder import Encoder
from serving.worker.payload import BYTES, JSON

NAME, VERSION, SIZE = "bench-encoder", "1", 224
GOOD = {"good": (4, 1.0)}  # clients, and the s each waits between two requests
SHARE = 4  # good requests for each attack
ATTACKERS = 8  # connections at most
SIDE, GIANT = 9000, 9459  # px of a JPEG's and a PNG's side; 9459² are the most pixels that are taken
WORST = 5.0  # times the p99 of the good clients alone
MEMORY = {"TorchServe": 1536, "FastAPI": 2560}  # MiB of the largest process: one worker, both runs
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


class Assault(Crowd):
    """Good clients, and attackers who take turns; each kind is a method."""

    KINDS = ("scans", "heavy", "giant", "repeated", "chunked", "slow", "stranger", "grpc")

    def __init__(self, runtime: Runtime, truth: Truth) -> None:
        super().__init__(runtime, NAME, truth, VERSION, GOOD | {"attack": (ATTACKERS, 0.01)})
        self.turns, self.attacks = cycle(self.KINDS), 0
        self.files = {
            "scans": (progressive(3000), {413}),
            "heavy": (progressive(2), {200, 503}),
            "giant": (deep(), {200, 503}),
        }

    def attack(self, client: Client, generator: np.random.Generator) -> str:
        with self.lock:
            if SHARE * self.attacks > len(self.ledger.latencies):
                return ""
            self.attacks += 1
            kind = next(self.turns)
        return f"{kind}: {getattr(self, kind)(client, generator)}"

    def file(self, kind: str, client: Client) -> str:
        data, allowed = self.files[kind]
        answer = self.post(client, data=data, headers={"Content-Type": BYTES})
        return str(answer.status_code) if answer.status_code in allowed else self.lose(kind, str(answer.status_code))

    def scans(self, client: Client, generator: np.random.Generator) -> str:
        return self.file("scans", client)

    def heavy(self, client: Client, generator: np.random.Generator) -> str:
        return self.file("heavy", client)

    def giant(self, client: Client, generator: np.random.Generator) -> str:
        return self.file("giant", client)

    def repeated(self, client: Client, generator: np.random.Generator) -> str:
        return self.form(client, generator, chunked=False)

    def chunked(self, client: Client, generator: np.random.Generator) -> str:
        return self.form(client, generator, chunked=True)

    def form(self, client: Client, generator: np.random.Generator, chunked: bool) -> str:
        """Three images under one name; each must be answered."""
        was, rows = (self.serves, self.changes), generator.integers(0, len(self.truth.files), 3).tolist()
        parts = [("image", ("image", self.truth.files[row], BYTES)) for row in rows]
        form = requests.Request("POST", self.url, files=parts).prepare()
        assert isinstance(form.body, bytes)
        sent = Drops(form.body) if chunked else form.body
        answer = self.post(client, data=sent, headers={"Accept": JSON, "Content-Type": form.headers["Content-Type"]})
        if not answer.ok:
            return self.lose("form", str(answer.status_code))
        self.check(rows, answer, was)
        return "200"

    def stranger(self, client: Client, generator: np.random.Generator) -> str:
        """Announce 20 MB without a token, and send 20 kB in 10 s."""
        with self.knock() as one, suppress(OSError):
            one.sendall(
                f"POST {urlsplit(self.url).path} HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n".encode()
            )
            for _ in range(20):
                if self.ended.wait(0.5):
                    break
                one.sendall(bytes(1000))
        return "left"

    def grpc(self, client: Client, generator: np.random.Generator) -> str:
        with self.knock() as one:
            one.sendall(PREFACE)
            with suppress(OSError):
                if one.recv(9)[3:4] == b"\x04":  # the settings, which open a gRPC connection
                    return self.lose("grpc", "is open")
        return "closed"

    def knock(self) -> socket.socket:
        place = urlsplit(self.url)
        return socket.create_connection((str(place.hostname), int(place.port or 80)), timeout=30)


class Drops:
    """A body without a length, which is sent in chunks; it can be sent again with a new token."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        return (self.body[i : i + 10_000] for i in range(0, len(self.body), 10_000))


def progressive(more: int) -> bytes:
    """A grey JPEG of 9000² whose last scan is repeated `more` times; it has 6 scans of its own."""
    file = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[last:end] * more + data[end:]


def deep() -> bytes:
    """The largest 16-bit PNG that is allowed."""
    file = io.BytesIO()
    Image.fromarray(np.full((GIANT, GIANT), 700, np.uint16)).save(file, "PNG")
    return file.getvalue()


class Memory(Thread):
    """Watches a server's processes: the most MiB that one ever had, and how many started after the first check."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.server, self.ended = psutil.Process(pid), Event()
        self.largest, self.born = 0.0, 0
        self.known = self.look()

    def look(self) -> set[int]:
        found = [self.server, *self.server.children(recursive=True)]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                self.largest = max(self.largest, process.memory_info().rss / 2**20)
        return {process.pid for process in found}

    def run(self) -> None:
        while not self.ended.wait(0.2):
            now = self.look()
            self.born += len(now - self.known)
            self.known |= now


def prepare(folder: Path) -> tuple[Path, Truth]:
    """The promoted file, and the right answers by ONNX Runtime from the packed file."""
    (folder / "unpacked").mkdir(parents=True)
    preprocess = Preprocess(SIZE, range=(0, 65535))
    mar = packed(ViTParams(arch="vit_small", patch_size=16), SIZE, folder / "encoder.mar", preprocess=preprocess)
    archive.unpack(mar, folder / "unpacked")
    one, files = Encoder(folder / "unpacked"), pictures(SIZE, "JPEG")
    tensors = np.stack([one.preprocess(file) for file in files])
    return promote(folder, mar), Truth(files, tensors, {VERSION: one.embed(tensors)})


def change_tokens(runtime: Runtime, ended: Event) -> None:
    """Change the tokens every minute. The FastAPI application keeps one token while it runs."""
    while not ended.wait(60):
        command = [sys.executable, "-m", "serving.deploy", "--run", str(runtime.folder), "--rotate"]
        subprocess.run(command, capture_output=True, check=True)


def measure(server: str, runtime: Runtime, truth: Truth, minutes: float) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for the good clients alone, one with the attackers; and the failures."""
    rows, p99, faults = list[dict[str, Any]](), list[float](), list[str]()
    memory = Memory(runtime.pid)
    memory.start()
    for crowd, long in ((Crowd(runtime, NAME, truth, VERSION, GOOD), minutes / 4), (Assault(runtime, truth), minutes)):
        ended = Event()
        rotation = Thread(target=change_tokens, args=(runtime, ended))
        if server == "TorchServe" and isinstance(crowd, Assault):
            rotation.start()
        with crowd:
            ended.wait(60 * long)
        ended.set()
        if rotation.ident:
            rotation.join()
        ledger = crowd.ledger
        attacks = crowd.attacks if isinstance(crowd, Assault) else 0
        times = (np.percentile(ledger.latencies, (50, 95, 99)) * 1000).tolist()
        p99.append(times[-1])
        rows.append(
            {"server": server, "minutes": long, "good requests": len(ledger.latencies), "attacks": attacks}
            | {f"p{p}, ms": ms for p, ms in zip((50, 95, 99), times, strict=True)}
            | {"lost": len(ledger.lost), "wrong": len(ledger.wrong), "largest process, MiB": memory.largest}
        )
        faults += [f"{server}: {what}" for what in (*ledger.lost[:5], *ledger.wrong[:5])]
        del crowd.ledger.outcomes["attack", ""]
        print(f"{markdown(counted(crowd))}\n", flush=True)
    memory.ended.set()
    memory.join()
    if (worse := p99[1] / p99[0]) > WORST:
        faults.append(f"{server}: the p99 of good requests is {worse:.1f} times that without attackers.")
    if memory.largest > MEMORY[server]:
        faults.append(f"{server}: a process had {memory.largest:.0f} MiB.")
    if memory.born:
        faults.append(f"{server}: {memory.born} processes were restarted.")
    return rows, faults


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endpoint.assault", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="minutes of the attack on each server (default: 20)")
    parser.add_argument("--servers", nargs="+", choices=MEMORY, default=list(MEMORY),
                        help="the servers to attack (default: both)")  # fmt: skip
    given = parser.parse_args()
    folder = Path(".scratch/assault").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    promoted, truth = prepare(folder)
    rows, faults = list[dict[str, Any]](), list[str]()
    for server in given.servers:
        with ExitStack() as stack:
            if server == "TorchServe":
                runtime = stack.enter_context(running(folder, promoted))
                ready(runtime)
            else:
                runtime = stack.enter_context(second(folder / "second", promoted))
            more, wrong = measure(server, runtime, truth, given.minutes)
            rows, faults = rows + more, faults + wrong
    print(markdown(rows))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
