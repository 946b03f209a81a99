"""`foundry recipes`: what there is to choose from, read from the comments at the top of recipes/*.yaml."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.command_line import project, screen

KEY = re.compile(r"([A-Z][a-z]+): ?(.*)")
DOWNLOAD = re.compile(r"^download: \[([^]]+)\]", re.MULTILINE)
FOLDER = re.compile(r"data/raw/[\w-]+")
HEAD = ("recipe", "what it trains", "images", "machine", "time")


@dataclass(frozen=True)
class Recipe:
    """The comment of a recipe: what it is, then its remarks by their keys (Source, Machine, Time, …)."""

    name: str
    about: str
    remarks: dict[str, str]
    images: str

    @property
    def needs(self) -> str:
        """The same but for its name and what it trains, in one line."""
        return ", ".join(f"{key}: {value}" for key, value in zip(HEAD[2:], self.row[2:], strict=True))

    @property
    def row(self) -> tuple[str, ...]:
        """The recipe in the table."""
        machine = self.remarks.get("Machine", "").partition(" (")[0]
        if machine and "CPU" not in machine:
            machine += " GPU"
        return self.name, sentence(self.about), self.images, machine, sentence(self.remarks.get("Time", ""))


def read(path: Path) -> Recipe:
    """The recipe in this file."""
    text = path.read_text(encoding="utf-8")
    about: list[str] = []
    remarks: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = line.removeprefix("#").strip()
        if line.startswith("# ") and not line.startswith("#  ") and (found := KEY.fullmatch(said)):
            key = found[1]
            remarks[key] = found[2]
        elif key:
            remarks[key] = f"{remarks[key]} {said}".strip()
        else:
            about.append(said)
    return Recipe(path.stem, " ".join(about), remarks, images(text, remarks))


def images(text: str, remarks: dict[str, str]) -> str:
    """Where its images come from."""
    if fetched := DOWNLOAD.search(text):
        return f"{fetched[1]} (fetched)"
    place = FOLDER.search(remarks.get("Command", ""))
    return f"your copy in {place[0]}" if place else "your own folder"


def sentence(text: str) -> str:
    """The first sentence of a remark; the rest is for those who ask for this recipe."""
    return text.partition(". ")[0].removesuffix(".")


def every() -> list[Recipe]:
    """All recipes, by their names."""
    return [read(project.root() / "recipes" / f"{name}.yaml") for name in project.recipe_names()]


def show(name: str | None) -> None:
    """One recipe with all that its comment says, or the table of all of them."""
    if name is None:
        if screen.is_terminal():  # often too narrow for so many columns
            screen.table([(row[0], f"{row[1]}.\n{recipe.needs}\n") for recipe in every() for row in [recipe.row]])
        else:
            screen.table([recipe.row for recipe in every()], HEAD)
        print("\nTo read more about a recipe: foundry recipes NAME. To run it: foundry run --recipe NAME.")
        return
    found = read(project.root() / "recipes" / f"{name}.yaml")
    print(f"{found.about}\n")
    screen.table([(key, text) for key, text in found.remarks.items()])
