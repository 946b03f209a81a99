"""TorchServe's management interface. Every call raises ServingError with the reason; the caller names the model."""

import time
from typing import Any

import psutil
import requests

from serving import ServingError
from serving.host import loopback
from serving.host.disk_space import lacking
from serving.host.runtime import Api, Runtime

SECONDS = 20  # for one answer: describing is quick, removing waits for a worker's end
Description = dict[str, Any]


class Management:
    """Speaks with the server of one folder, by the token that its file holds at the moment of each call."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def names(self) -> list[str]:
        """All names on the server."""
        return [model["modelName"] for model in self._call("GET", "models", limit="100").json()["models"]]

    def versions(self, name: str) -> dict[str, Description]:
        """TorchServe's description of each version of a name; empty when it does not know the name."""
        return {each["modelVersion"]: each for each in self._describe(f"{name}/all")}

    def default(self, name: str) -> str | None:
        """The version that answers under the name alone."""
        found = self._describe(name)
        return str(found[0]["modelVersion"]) if found else None

    def register(self, name: str, file: str) -> None:
        """Add an archive of the model store beside the present versions, and start its workers.

        The call is not `synchronous`, because that would block one of the few threads that also pass on images.
        """
        self._call("POST", "models", url=file, model_name=name, synchronous="false")

    def wait(self, name: str, version: str, seconds: float) -> None:
        """Wait until the version's workers have loaded it. Raises ServingError when one ends, or is too slow."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (found,) = self._describe(f"{name}/{version}") or ({},)
            if ready(found):
                return
            workers = found.get("workers", [])
            # TorchServe would keep trying. A worker that has not started yet has no process id.
            if any(worker["pid"] > 0 and not psutil.pid_exists(worker["pid"]) for worker in workers):
                raise ServingError("Its worker ended while it loaded the archive.")
            time.sleep(0.1)
        raise ServingError(f"Its worker did not start within {seconds:g} s.")

    def renew(self, name: str, version: str) -> None:
        """Replace all workers of a version."""
        (found,) = self._describe(f"{name}/{version}") or ({},)
        for count in ("0", str(found.get("maxWorkers") or 1)):
            self._call("PUT", f"models/{name}/{version}", min_worker=count, max_worker=count, synchronous="false")

    def make_default(self, name: str, version: str) -> None:
        """Let the version answer under the name alone, from the next request on."""
        self._call("PUT", f"models/{name}/{version}/set-default")

    def remove(self, name: str, version: str) -> None:
        """Remove a version and its worker. TorchServe refuses this for a default while other versions are there."""
        self._call("DELETE", f"models/{name}/{version}")

    def rotate(self, api: Api) -> None:
        """Replace a token; the old one stops working immediately. Raises ServingError on a full disk.

        Otherwise TorchServe would leave an empty file, and nobody would know the new token.
        """
        if lack := lacking(self.runtime.folder, 1 << 16):
            raise ServingError(f"No new token can be written to {self.runtime.keys}. {lack}")
        self._call("GET", "token", "API", type=api)

    def _describe(self, path: str) -> list[Description]:
        answer = self._call("GET", f"models/{path}", missing=True)
        return list(answer.json()) if answer.ok else []

    def _call(
        self, method: str, path: str, key: Api = "management", missing: bool = False, **query: str
    ) -> requests.Response:
        url = f"{self.runtime.address('management')}/{path}"
        headers = {"Authorization": f"Bearer {self.runtime.token(key)}"}
        try:
            answer = loopback.request(method, url, params=query, headers=headers, timeout=(5, SECONDS))
        except requests.Timeout as error:
            raise ServingError(f"The server gave no answer in {SECONDS} s.") from error
        except requests.RequestException as error:
            raise ServingError("No server answers.") from error
        if answer.ok or (missing and answer.status_code == requests.codes.not_found):
            return answer
        raise ServingError(f"TorchServe refused the request: {_message(answer)}.")


def ready(description: Description) -> bool:
    """Whether TorchServe says that all workers of a version have loaded it. This does not prove that they answer."""
    workers = description.get("workers", [])
    return bool(workers) and all(worker["status"] == "READY" for worker in workers)


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code} {answer.reason}"
