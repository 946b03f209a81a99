"""403 for a missing or wrong token, where TorchServe says 400.

Its front end answers every exception by its class. The check of the token throws one that means a bad archive; the
name of that class, in this one class file, is exchanged for one that means forbidden. The copy stands before the jar.
"""

import struct
import zipfile
from pathlib import Path

from serving import ServingError

CHECK = "org/pytorch/serve/http/TokenAuthorizationHandler.class"
THROWN, FORBIDDEN = b"org/pytorch/serve/archive/model/InvalidKeyException", b"java/lang/IllegalArgumentException"


def write(frontend: Path, classes: Path) -> None:
    """The changed class of this front end's jar into a folder for the class path.

    Raises ServingError when the jar is not the one that is known.
    """
    (jar,) = frontend.glob("*.jar")
    with zipfile.ZipFile(jar) as file:
        code = file.read(CHECK)
    if code.count(constant(THROWN)) != 1:
        raise ServingError(f"{jar} is not TorchServe 0.12: its check of tokens is another; run `make setup`.")
    path = classes / CHECK
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(code.replace(constant(THROWN), constant(FORBIDDEN)))


def constant(text: bytes) -> bytes:
    """A text in a class file: its tag, its length, and itself."""
    return struct.pack(">BH", 1, len(text)) + text
