"""`make serve`: run TorchServe with the promoted encoders, and watch over it until Ctrl-C."""

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
    """`make serve`: start TorchServe, deploy the promoted encoders, print how to ask them, and run until Ctrl-C."""
    parser = Parser(prog="python -m serving.server", description=main.__doc__)
    parser.add_argument("--stop", action="store_true", help="stop the running server, and exit")
    stopping = parser.parse_args().stop
    path = Path("artifacts/promoted.json")
    with command():
        if stopping:
            print(lock.stop(Runtime()))
            return
        name = promoted.read(path).encoder
        print("Starting TorchServe …", flush=True)
        try:
            with Server() as server:
                for fault in deploy(path, server.runtime, partly=True):
                    print(fault, file=sys.stderr, flush=True)
                names = served_file.read(server.runtime).now
                name = name if name in names else next(iter(names))
                address = server.runtime.address("inference")
                print(
                    f"Serving at {address}. The log is {server.runtime.log}, the tokens are in "
                    f"{server.runtime.keys}. Try:\n\n"
                    f'  curl -H "Authorization: Bearer $({os.path.relpath(sys.executable)} -m serving.client --token)" '
                    f"-T image.png {address}/predictions/{name}\n\nCtrl-C stops the server.",
                    flush=True,
                )
                Watchdog(server).run()
        except KeyboardInterrupt:
            print("\nStopped.")


if __name__ == "__main__":
    main()
