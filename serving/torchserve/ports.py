"""The six ports of a server: five of TorchServe, one of serving/torchserve/ready.py."""

import os
import socket
from urllib.parse import urlsplit

from serving import ServingError
from serving.host.free_ports import free_ports

HTTP = ("inference_address", "management_address", "metrics_address", "ready_address")
GRPC = ("inference", "management")


def free() -> str:
    """Lines for config.properties that set every port to a free one."""
    numbers = iter(free_ports(len(HTTP + GRPC)))
    lines = [f"{key}=http://127.0.0.1:{next(numbers)}" for key in HTTP]
    lines += [f"grpc_{key}_port={next(numbers)}" for key in GRPC]
    return "\n".join(["", *lines, ""])


def refused(error: OSError) -> str:
    """Why, without the address, which Python repeats."""
    return os.strerror(error.errno) if error.errno else str(error)


def check(settings: dict[str, str]) -> None:
    """Raises ServingError when a port is taken. TorchServe itself would end with a Java stack trace."""
    places = [(urlsplit(settings[key]).hostname or "", urlsplit(settings[key]).port or 443) for key in HTTP]
    places += [(settings[f"grpc_{key}_address"], int(settings[f"grpc_{key}_port"])) for key in GRPC]
    for host, port in places:
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            raise ServingError(
                f"The server cannot listen on {host}:{port} ({refused(error)}). Stop the program that uses the port: "
                f"ss -ltnp | grep :{port} names it. Or change the port in serving/config.properties."
            ) from error
