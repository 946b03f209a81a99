"""Connections of the FastAPI server: limited in number, and closed when they are silent for too long."""

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

FILES = 8192  # that a process may have open, if the system allows it
HEAD = 10.0  # s for the head of a request, from the connection or from its first byte on; its body has its own limit
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def allow_files() -> int:
    """Raise this process's limit of open files as far as allowed; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return FILES if soft == resource.RLIM_INFINITY else soft


def most() -> int:
    """The largest number of connections: a quarter of the files. Half is for connections that will be refused.

    asyncio accepts all waiting connections, up to twice, before the first can be closed. Without a free file it fills
    the log.
    """
    return allow_files() // 4


def waiting() -> int:
    """The largest number of connections that wait to be accepted."""
    return min(2048, allow_files() // 6)


class Connection(H11Protocol):
    """uvicorn's connection with these limits."""

    hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > most():
            transport.write(FULL)
            transport.close()
        else:
            self._begin()

    def data_received(self, data: bytes) -> None:
        if self.hurry is None and self._idle():
            self._begin()
        super().data_received(data)
        if not self._idle():
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _idle(self) -> bool:
        """Whether all its requests are answered."""
        return self.cycle is None or self.cycle.response_complete

    def _begin(self) -> None:
        self.hurry = self.loop.call_later(HEAD, self.transport.abort)

    def _end(self) -> None:
        if self.hurry:
            self.hurry.cancel()
            self.hurry = None
