"""`foundry`, and `python -m pipelines.command_line`.

Imports nothing that is slow before it can answer Ctrl-C.
"""

import sys


def main() -> None:
    """Entry point of the console script."""
    try:
        from pipelines.command_line import program  # noqa: PLC0415

        sys.exit(program.start(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
