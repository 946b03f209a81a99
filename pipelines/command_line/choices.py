"""Values that are completed by the shell and checked before anything starts."""

from collections.abc import Sequence

import typer

from pipelines.command_line import project

SCALES = ("quick", "small", "gpu")  # of studies, the smallest first


def recipe(given: str | None) -> str | None:
    """The name of a recipe. Raises BadParameter with the names that there are."""
    return None if given is None else one_of(project.recipe_names(), given, "recipe")


def methods(given: str | None) -> str | None:
    """Names of methods with commas between. Raises BadParameter with the names that there are."""
    if given is None:
        return None
    return ",".join(one_of(project.method_names(), name.strip(), "method") for name in given.split(","))


def studies(given: list[str] | None) -> list[str] | None:
    """Names of studies. Raises BadParameter with the names that there are."""
    return None if given is None else [one_of(project.study_names(), name, "study") for name in given]


def scale(given: str | None) -> str | None:
    """How large a study is run. Raises BadParameter with what there is."""
    return None if given is None else one_of(SCALES, given, "scale")


def one_of(known: Sequence[str], name: str, what: str) -> str:
    """The name, when it is known."""
    if name not in known:
        raise typer.BadParameter(f"{name!r} is not a {what}. Choose from: {', '.join(known)}.")
    return name


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that begin so."""
    return [name for name in project.recipe_names() if name.startswith(incomplete)]


def complete_study(incomplete: str) -> list[str]:
    """Studies that begin so."""
    return [name for name in project.study_names() if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """The list of methods so far, with each other method as its next."""
    before, comma, last = incomplete.rpartition(",")
    used = before.split(",")
    return [f"{before}{comma}{name}" for name in project.method_names() if name.startswith(last) and name not in used]
