"""Send requests over several connections, one after the other on each; measure rate and latencies."""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Load:
    """seconds, latencies in seconds, answers by status; body of the last answer to each request that was sent."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: dict[int, bytes] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, p: float) -> float:
        """A percentile of the latency, in milliseconds."""
        return float(1000 * np.percentile(self.latencies, p))


def message(url: str, token: str, body: bytes, accept: str = "application/octet-stream") -> bytes:
    """A whole request, as it goes over the wire."""
    place = urlsplit(url)
    head = (
        f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Accept: {accept}\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """A connection that is kept open, with at most one request on its way."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got, self.number, self.begin = b"", 0, 0.0

    def send(self, number: int, whole: bytes) -> None:
        self.got, self.number, self.begin = b"", number, time.perf_counter()
        self.socket.sendall(whole)

    def receive(self) -> tuple[int, bytes] | None:
        """(status, body) when the answer is complete, otherwise None. Raises ConnectionError when it is closed."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("The server closed the connection.")
        self.got += data
        head, found, body = self.got.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return (int(head[9:12]), body) if len(body) >= length else None


def run(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send the requests again and again for so many seconds."""
    place, load, sent = urlsplit(url), Load(), 0
    assert place.hostname is not None
    assert place.port is not None
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            one = Connection(place.hostname, place.port)
            selector.register(one.socket, selectors.EVENT_READ, one)
        begin = time.perf_counter()
        waiting = [key.data for key in selector.get_map().values()]
        while waiting or time.perf_counter() < begin + seconds:
            for one in waiting:
                one.send(sent % len(requests), requests[sent % len(requests)])
                sent += 1
            waiting = []
            for key, _ in selector.select(timeout=10):
                if (answer := key.data.receive()) is not None:
                    load.latencies.append(time.perf_counter() - key.data.begin)
                    load.statuses[answer[0]] += 1
                    load.bodies[key.data.number] = answer[1]
                    if time.perf_counter() < begin + seconds:
                        waiting.append(key.data)
            if time.perf_counter() >= begin + seconds:
                break
        load.seconds = time.perf_counter() - begin
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return load
