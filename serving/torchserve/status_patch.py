"""Correct TorchServe's HTTP statuses: 403 for a missing or wrong token, 400 for a request that cannot be read.

Its front end chooses the status by the class of an exception. The token check throws one that means a bad archive
(400), a broken address one that means forbidden (403), and a broken form one that it does not expect (500). So names in
two class files are replaced: the token check throws its own class, only that class means forbidden, and an unexpected
exception means a request that cannot be read. The changed copies come before the jar on the class path.

Three more changes, for which there is no setting:
- gRPC, which is not used here, looks for the token in a header with a secret name. So it is closed.
- `bearer` may be written in lower case, as RFC 7235 says.
- curl labels every `--data-binary` as the text of an HTML form. Only multipart forms are taken apart, so that the body
  remains an image file.
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
                    raise ServingError(
                        f"The file {jar} is not TorchServe 0.12, because its {name} differs. Run `make setup`."
                    )
                code = code.replace(constant(old), constant(new))
            path = classes / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(code)


def constant(text: bytes) -> bytes:
    """A text in a class file: its tag, its length, and itself."""
    return struct.pack(">BH", 1, len(text)) + text
