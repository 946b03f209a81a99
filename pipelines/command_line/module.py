"""A command that is a module of its own: `foundry embed …` becomes `python -m serving.embed …`.

The options are declared once for `foundry`, with their help, and passed on from that declaration. The process is
replaced, so that signals and exit codes are the module's own.
"""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from pipelines.command_line import project


def become(module: str, context: typer.Context, positional: tuple[str, ...] = ()) -> NoReturn:
    """Run the module in the project's folder, in place of this process.

    positional: options of this command that are plain arguments of the module.
    """
    arguments = [sys.executable, "-m", module, *passed_on(context, positional)]
    project.enter()
    sys.stdout.flush()
    os.execv(sys.executable, arguments)


def passed_on(context: typer.Context, positional: tuple[str, ...] = ()) -> list[str]:
    """The command's options and arguments as a command line."""
    options: list[str] = []
    plain: list[str] = []
    for parameter in context.command.params:
        given: Any = context.params.get(str(parameter.name))
        for value in given if isinstance(given, list | tuple) else [given]:
            text = str(project.from_root(value)) if isinstance(value, Path) else str(value)
            if value is None or value is False:
                continue
            if parameter.param_type_name == "argument" or parameter.name in positional:
                plain.append(text)
            else:
                flag = parameter.opts[0]
                options.append(flag if value is True else f"{flag}={text}")
    return [*options, *(["--", *plain] if plain else [])]
