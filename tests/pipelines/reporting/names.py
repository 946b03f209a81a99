"""Keys of methods and tools in text for people, where their names belong."""

import re

KEYS = (
    "simclr",
    "mae",
    "dino",
    "fixmatch",
    "pseudolabel",
    "knn",
    "mlflow",
    "dvc(?! repro)",
    "prefect",
    "torchserve",
    "onnx",
)
NOT_TEXT = r"<(style|code|pre|defs|title)\b.*?</\1>|<[^>]*>"


def keys_in(text: str) -> set[str]:
    """Those that stand alone in a text or a page: not in code, nor in a key of params.yaml or the name of a file."""
    shown = re.sub(NOT_TEXT, " ", text, flags=re.DOTALL)
    return set(re.findall(rf"(?<![\w.@/-])({'|'.join(KEYS)})(?!\.\w|[\w@/-])", shown))
