"""The model that the watched server serves: its name, its workers and its answer."""

import numpy as np
import psutil

from serving.client import Client
from serving.torchserve.management import Management
from serving.torchserve.process import Server
from tests.serving.conftest import expected, picture, until

NAME = "digits-encoder"


def workers(server: Server, status: str = "") -> set[int]:
    standing = Management(server.runtime).versions(NAME)["1"]["workers"]
    return {worker["pid"] for worker in standing if status in worker["status"]}


def until_two(server: Server) -> set[int]:
    """The two workers, once both have loaded: TorchServe names the dead until it starts another."""
    until(lambda: len([pid for pid in workers(server, "READY") if psutil.pid_exists(pid)]) == 2)
    return workers(server)


def check(server: Server, name: str = NAME, factor: int = 1) -> None:
    png, pixels = picture(4)
    vector = Client.of(server.runtime).embed(name, png)
    np.testing.assert_allclose(vector, expected(pixels, factor), rtol=1e-4, atol=1e-5)
