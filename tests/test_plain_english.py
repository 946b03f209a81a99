"""Text for people is plain English: errors are full sentences, and no text has the words that we avoid."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("data", "models", "pipelines", "serving", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        *("*.md", "docs/**/*.md", "params.yaml", "recipes/*.yaml", "Makefile", "pipelines/**/*.html"),
        *("serving/*.yaml", "serving/worker/*.yaml", "serving/*.conf", "serving/*.properties", "serving/grafana.json"),
    )
    for path in ROOT.glob(pattern)
    if path.name not in ("CHANGELOG.md", "log.md")  # records of their time
)

# The errors whose text people read → which argument that text is.
MESSAGE = {
    **dict.fromkeys(("StageError", "ServingError", "DataError", "ConfigError", "CheckpointError"), 0),
    **{"ImageError": 0, "SystemExit": 0, "Refused": 1, "HTTPException": 1, "sys.exit": 0, "parser.error": 0},
}
# A message may begin or end with these values: each is a whole sentence, or the name of an image before one.
SENTENCES = {"sentence", "self.left()", "RESTORE", "AGAIN", "lack", "answer", "_shown(image)"}

RATE = (  # what a rate is per
    r"(second|minute|hour|class|step|batch|epoch|image|view|task|shard|seed|worker|model|GPU|core|patch|request|row"
    r"|run|fold|photograph|variant|method|connection)"
)
RATED = (
    r"(labels?|images?|views?|bytes|[KMG]i?B|FLOPs?|steps|requests|answers|seconds|files|rows|tokens|numbers?|tasks?)"
)
AVOIDED = {
    rf"\b{RATED} an? {RATE}\b(?! time)": "per: labels per class, images per second",
    r"\b(a|one|each|every|the) (look|looks)\b|\b(first|last|next|two) looks?\b": "health check, or check",
    r"\btrainings\b|\b(a|each|every|one|whole) training\b(?! (run|loop|step|image|split|batch|set))": "training run",
    r"\b(label draws?|draws? of (the )?labels?)\b": "label sample",
    r"\b(a|the|every|each|trained|random) controls?\b": "baseline",
    r"\b(through|along|down) the line\b|\bthe line (goes|serves|trains)\b": "pipeline",
    r"\banew\b": "again",
    r"\b(law|laws)\b": "settings, or distribution",
    r"\btold\b": "gets, reads, prints or distinguishes",
    r"\bof no use\b": "cannot be used",
    r"\bworth nothing\b": "stops working",
    r"\b(ends?|leaves?|stops?|refused|fails?|reports?|exits?|dies?) at once\b": "immediately",
    r"\b(goes?|going) on (from|where|in|with|there|here)\b|\bto go on\b": "resume, or continue",
    r"\brooms?\b": "space",
    r"\bhouse\b": "project",
    r"\b(lest|whoever|thereof|in vain)\b": "so that … not; everybody who; without effect",
    r"\bdone twice\b": "the flow skips finished stages",
}


@pytest.mark.parametrize("name", CODE)
def test_a_message_is_a_full_sentence(name: str) -> None:
    """It starts with a capital and ends with a full stop; a list of lines or a log may follow a colon."""
    assert list(faults(ast.parse((ROOT / name).read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("name", [*CODE, *PAGES])
def test_no_text_has_a_word_that_we_avoid(name: str) -> None:
    path = ROOT / name
    lines = texts(path) if path.suffix == ".py" else enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    found = [
        f"{name}:{number}: {match[0]!r}. Write: {better}"
        for number, text in lines
        for avoided, better in AVOIDED.items()
        for match in re.finditer(avoided, text, re.IGNORECASE)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ('StageError(f"The file {path} is missing. Run `make demo`.")', None),
        ('StageError(f"{path} is missing.")', "starts with {path}"),
        ('StageError("the file is missing.")', "starts in lower case"),
        ('StageError(f"The file is {state}")', "ends with {state}"),
        ('StageError(f"The file is missing. {self.left()}")', None),
        ('DataError("It is missing" if gone else "It is damaged.")', "ends without a full stop"),
        ('sys.exit("The log ends with:\\n" + log)', None),
        ('sys.exit("The log" + log)', "ends without a full stop"),
        ("sys.exit(75)", None),
        ("sys.exit(str(error))", None),
        ('parser.error("name an image")', "starts in lower case; ends without a full stop"),
        ('Refused(400, "no image")', "starts in lower case; ends without a full stop"),
    ],
)
def test_the_rule_for_messages(message: str, fault: str | None) -> None:
    found = "; ".join(fault.partition(": ")[2] for fault in faults(ast.parse(message)))
    assert found == (fault or "")


@pytest.mark.parametrize(
    ("text", "avoided"),
    [
        ("5 labels a class", True),
        ("5 labels per class", False),
        ("Images a second", True),
        ("reads images a second time", False),
        ("a class of Python, the command line, a line of a file", False),
        ("the trainings of a method", True),
        ("labelled_trainings: false", False),
        ("a training run, every training step", False),
        ("16 images at once", False),
        ("the process ends at once", True),
    ],
)
def test_the_rule_for_words(text: str, avoided: bool) -> None:
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in AVOIDED) == avoided


def faults(tree: ast.AST) -> Iterator[str]:
    """What is wrong with the messages of a module, each with its line."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and (place := MESSAGE.get(ast.unparse(call.func))) is not None:
            for message in [each for given in call.args[place : place + 1] for each in alternatives(given)]:
                yield from (f"line {call.lineno}: {fault}" for fault in (*start(message), *end(message)))


def alternatives(message: ast.expr) -> list[ast.expr]:
    """`a if … else b` and `a or b` are two messages."""
    if isinstance(message, ast.IfExp):
        return [*alternatives(message.body), *alternatives(message.orelse)]
    if isinstance(message, ast.BoolOp):
        return [each for value in message.values for each in alternatives(value)]
    return [message]


def start(message: ast.expr) -> list[str]:
    """A message that is no literal is passed on: it is judged where it is written."""
    if isinstance(message, ast.BinOp):
        return start(message.left)
    if isinstance(message, ast.JoinedStr):
        return start(message.values[0])
    if isinstance(message, ast.FormattedValue):
        return [] if is_sentence(message.value) else [f"starts with {{{ast.unparse(message.value)}}}"]
    text = message.value if isinstance(message, ast.Constant) else None
    return ["starts in lower case"] if isinstance(text, str) and not text.lstrip("\n")[:1].isupper() else []


def end(message: ast.expr, more: bool = False) -> list[str]:
    """more: something follows that is no literal."""
    if isinstance(message, ast.BinOp):
        literal = isinstance(message.right, ast.Constant | ast.JoinedStr)
        return end(message.right) if literal else end(message.left, more=True)
    if isinstance(message, ast.JoinedStr):
        *before, last = message.values
        listed = isinstance(last, ast.FormattedValue) and before and ends_in_colon(before[-1])
        return [] if listed else end(last, more)
    if isinstance(message, ast.FormattedValue):
        return [] if is_sentence(message.value) else [f"ends with {{{ast.unparse(message.value)}}}"]
    if not (isinstance(message, ast.Constant) and isinstance(message.value, str)):
        return []
    ended = ends_in_colon(message) if more else message.value.endswith((".", "?"))
    return [] if ended else ["ends without a full stop"]


def ends_in_colon(message: ast.expr) -> bool:
    """Lines of a log or a list follow."""
    return isinstance(message, ast.Constant) and str(message.value).endswith(":\n")


def is_sentence(value: ast.expr) -> bool:
    return ast.unparse(value) in SENTENCES or ast.unparse(value).startswith("refused(")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of every comment, docstring and other string of a module."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno + i, line) for i, line in enumerate(node.value.split("\n")))
