"""`make ui`: MLflow's page and Prefect's page over this project's stores, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipelines.orchestration import prefect_settings
from pipelines.project import stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store

MLFLOW = 5000
PREFECT = 4200
HOST = "127.0.0.1"


def main() -> None:
    for port in (MLFLOW, PREFECT):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                raise StageError(f"Port {port} is taken. Stop the program that listens there.")
    mlflow_store.connect()
    commands = [
        [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(MLFLOW)],
        [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(PREFECT)],
    ]
    # Not an argument, which everybody on the machine could read: the address may hold a password.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": os.environ["MLFLOW_TRACKING_URI"]}
    log = stage.SCRATCH / "ui.log"
    with log.open("w", encoding="utf-8") as file:
        servers = [subprocess.Popen(command, stdout=file, stderr=file, env=environment) for command in commands]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"MLflow   http://{HOST}:{MLFLOW}  runs and registered models\n"
              f"Prefect  http://{HOST}:{PREFECT}  flow runs, from {prefect_settings.SETTINGS['PREFECT_HOME']}\n"
              f"log in {Path(log)}; Ctrl-C stops both", flush=True)  # fmt: skip
        try:
            os.waitpid(-1, 0)
            raise StageError(f"A server ended by itself. Read {log} to see why.")
        except KeyboardInterrupt:
            print()
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                with suppress(subprocess.TimeoutExpired):
                    server.wait(10)
                server.kill()


if __name__ == "__main__":
    stage.enter("orchestration.ui", main, __doc__)
