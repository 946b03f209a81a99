"""TorchServe's statuses where they are wrong: 403 for a missing or wrong token, 400 for what cannot be read.

Its front end answers every exception by its class. The check of the token throws one that means a bad archive (400),
a broken address one that means forbidden (403), a broken form one that it did not foresee (500). Names in two class
files are exchanged: the check throws a class of its own, that one alone means forbidden, and what is not foreseen is a
request that cannot be read. The copies stand before the jar.

Three more changes, of what no setting turns off:
- gRPC, which nobody here uses, looks for the token in a header whose name nobody knows.
- `bearer` may be written in small letters, as RFC 7235 says.
- curl says of every `--data-binary` that it is an HTML form's text. Only multipart forms are taken apart, so that the
  body remains an image file.
"""

import secrets
import struct
import zipfile
from pathlib import Path

from serving import ServingError

FORBIDDEN = b"java/lang/SecurityException"
# class file → texts in it, and what they are exchanged for
EXCHANGED = {
    "org/pytorch/serve/http/TokenAuthorizationHandler.class": {
        b"org/pytorch/serve/archive/model/InvalidKeyException": FORBIDDEN
    },
    "org/pytorch/serve/http/HttpRequestHandler.class": {
        b"java/lang/IllegalArgumentException": FORBIDDEN,
        b"INTERNAL_SERVER_ERROR": b"BAD_REQUEST",
    },
    "org/pytorch/serve/grpcimpl/GRPCInterceptor.class": {b"authorization": f"closed-{secrets.token_hex()}".encode()},
    "org/pytorch/serve/util/TokenAuthorization.class": {rb"^Bearer\s+(\S+)$": rb"^(?i:Bearer)\s+(\S+)$"},
    "org/pytorch/serve/http/api/rest/InferenceRequestHandler.class": {
        b"APPLICATION_X_WWW_FORM_URLENCODED": b"MULTIPART_FORM_DATA"
    },
}


def write(frontend: Path, classes: Path) -> None:
    """The changed classes of this front end's jar into a folder for the class path.

    Raises ServingError when the jar is not the one that is known.
    """
    (jar,) = frontend.glob("*.jar")
    with zipfile.ZipFile(jar) as file:
        for name, exchanged in EXCHANGED.items():
            code = file.read(name)
            for old, new in exchanged.items():
                if code.count(constant(old)) != 1:
                    raise ServingError(f"{jar} is not TorchServe 0.12: its {name} is another; run `make setup`.")
                code = code.replace(constant(old), constant(new))
            path = classes / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(code)


def constant(text: bytes) -> bytes:
    """A text in a class file: its tag, its length, and itself."""
    return struct.pack(">BH", 1, len(text)) + text
