"""`make serve`: TorchServe with what is promoted, watched over, until Ctrl-C."""

import os
import sys
from pathlib import Path

from serving.deploy import deploy
from serving.host import lock, promoted
from serving.host.command import Parser, command
from serving.host.runtime import Runtime
from serving.rollout import served_file
from serving.torchserve.process import Server
from serving.watchdog import Watchdog


def main() -> None:
    """`make serve`: start, deploy what is promoted, say how to ask, run until Ctrl-C."""
    parser = Parser(prog="python -m serving.server", description=main.__doc__)
    parser.add_argument("--stop", action="store_true", help="end the server that runs, and this command")
    stopping = parser.parse_args().stop
    path = Path("artifacts/promoted.json")
    with command():
        if stopping:
            print(lock.stop(Runtime()))
            return
        name = promoted.read(path).encoder
        print("starting TorchServe …", flush=True)
        try:
            with Server() as server:
                for fault in deploy(path, server.runtime, partly=True):
                    print(fault, file=sys.stderr, flush=True)
                names = served_file.read(server.runtime).now
                name = name if name in names else next(iter(names))
                address = server.runtime.address("inference")
                print(
                    f"serving at {address}, log in {server.runtime.log}, tokens in {server.runtime.keys}; try\n\n"
                    f'  curl -H "Authorization: Bearer $({os.path.relpath(sys.executable)} -m serving.client --token)" '
                    f"-T image.png {address}/predictions/{name}\n\nCtrl-C stops the server.",
                    flush=True,
                )
                Watchdog(server).run()
        except KeyboardInterrupt:
            print("\nstopped")


if __name__ == "__main__":
    main()
