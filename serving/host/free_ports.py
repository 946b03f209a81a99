"""Choose free ports for servers that start a moment later."""

import os
import socket
from itertools import cycle

from serving import ServingError

# Below the ports that Linux by default gives to outgoing connections, which could take one before its server does.
RANGE = range(20_000, 32_000)
STEP = 16  # between the first ports of two processes that were started one after the other

start = os.getpid() * STEP % len(RANGE)
candidates = cycle([*RANGE[start:], *RANGE[:start]])  # so no port is chosen twice within moments


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens now. Raises ServingError when there are too few."""
    found: list[int] = []
    for port, _ in zip(candidates, RANGE, strict=False):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise ServingError(
        f"Fewer than {count} of the ports {RANGE.start} to {RANGE.stop - 1} are free. Stop some servers."
    )
