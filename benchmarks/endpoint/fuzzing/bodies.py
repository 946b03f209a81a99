"""Request bodies other than one image: JSON, tensors and forms, nearly right or completely wrong."""

import base64
import json
import struct
from collections.abc import Sequence

from hypothesis import strategies as st

from benchmarks.endpoint.fuzzing.exchange import request
from benchmarks.endpoint.fuzzing.files import EDITS, FILE, IMAGES, edited

PIXELS = bytes(range(256)) * 3  # an image of 16 px


def text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def typed(kind: bytes, bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Requests of one Content-Type, their bodies mutated or not."""
    return (bodies | st.builds(edited, bodies, EDITS)).map(lambda body: request([b"Content-Type: " + kind], body))


BASE64 = IMAGES.map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=40)
NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 2**64])
KEY = st.sampled_from(["images", "b64", "data"]) | st.text(max_size=20)
ANY = st.recursive(
    st.none() | st.booleans() | NUMBER | BASE64,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {"images": st.lists(BASE64, min_size=1, max_size=8) | st.lists(BASE64 | ANY, max_size=66) | ANY}
)
ENCODING = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"])
WRITTEN = st.builds(
    lambda value, ascii, encoding: json.dumps(value, ensure_ascii=ascii).encode(encoding, "surrogatepass"),
    NEARLY | ANY, st.booleans(), ENCODING,
)  # fmt: skip
TWICE = st.tuples(*[ANY.map(lambda value: text(json.dumps(value)))] * 2).map(
    lambda two: b'{"images": %s, "images": %s}' % two
)
DEEP = st.builds(
    lambda start, depth, end: start * depth + end,
    st.sampled_from([b"[", b'{"images":']), st.integers(1, 20000), st.sampled_from([b"", b"]", b"1", b"null"]),
)  # fmt: skip
JSON = typed(b"application/json", WRITTEN | TWICE | DEEP)


def npy(version: bytes, header: bytes, lie: int, data: bytes) -> bytes:
    """A NumPy file; `lie` is by how much the length of its header is wrong."""
    form, most = ("<H", 1 << 16) if version == b"\1\0" else ("<I", 1 << 32)
    return b"\x93NUMPY" + version + struct.pack(form, (len(header) + lie) % most) + header + data


SIDE = st.sampled_from([0, 1, 3, 16, 64, -1, 2**31, 2**63, 10**30])
SHAPE = st.just((1, 3, 16, 16)) | st.lists(SIDE, max_size=5).map(tuple) | ANY
DESCR = st.just("|u1") | st.sampled_from(["u1", "<f4", "|O", "<U9", "|V0", "V768", ">M8[s]"]) | ANY
FIELDS = st.fixed_dictionaries({"descr": DESCR, "fortran_order": st.just(False) | st.booleans() | ANY, "shape": SHAPE})
HEADER = (FIELDS | ANY).map(lambda fields: text(repr(fields)) + b"\n") | st.binary(max_size=200)
VERSION = st.just(b"\1\0") | st.sampled_from([b"\2\0", b"\3\0", b"\0\0", b"\xff\xff"])
DATA = st.just(PIXELS) | st.sampled_from([PIXELS * 64, PIXELS * 65, b"", PIXELS[1:]]) | st.binary(max_size=800)
NPY = st.builds(npy, VERSION, HEADER, st.just(0) | st.integers(-300, 70000), DATA)
TENSORS = typed(b"application/x-npy", NPY) | typed(b"application/x-uint8", DATA)


def part(headers: Sequence[bytes], data: bytes) -> bytes:
    return b"\r\n".join([b"--b", *headers, b"", data, b""])


NAME = st.integers(0, 99).map(lambda number: b'form-data; name="%d"; filename="a.png"' % number)
ODD_NAME = st.sampled_from(
    ["form-data", "attachment", 'form-data; name="a"', "form-data; name=a; name=b", 'form-data; name=""; filename=""',
     'form-data; name="../../a"', 'form-data; name="é☃"', 'form-data; name="a',
     "form-data; name*=utf-8''%e2%98%83; filename*=x''%00"]
).map(text) | st.binary(max_size=20)  # fmt: skip
DISPOSITION = (NAME | NAME | ODD_NAME).map(lambda value: b"Content-Disposition: " + value)
MORE = st.sampled_from([
    b"Content-Type: image/png", b"Content-Type: text/plain; charset=x", b"Content-Type: multipart/mixed; boundary=c",
    b"Content-Transfer-Encoding: base64", b"Content-Length: 3", b"x", b"",
])  # fmt: skip
CONTENT = FILE | IMAGES | st.sampled_from([b"", b"words", b"--c\r\n\r\n--c--"])
PART = st.builds(lambda first, more, data: part([first, *more], data), DISPOSITION, st.lists(MORE, max_size=2), CONTENT)
MANY = st.integers(60, 70).map(
    lambda n: [part([b'Content-Disposition: form-data; name="%d"' % i], b"") for i in range(n)]
)
END = st.just(b"--b--\r\n") | st.sampled_from([b"--b--", b"", b"--b", b"\r\n", b"--b--\r\nmore"])
FORM = st.builds(
    lambda parts, end: b"".join(parts) + end, st.lists(PART, min_size=1, max_size=4) | MANY | st.just([]), END
)
FORMS = st.one_of(typed(b"multipart/form-data; boundary=b", FORM), *(
    typed(b"multipart/form-data" + rest, FORM)
    for rest in (b"", b"; boundary=", b'; boundary="b"', b"; boundary=c", b"; boundary=" + b"b" * 300)
))  # fmt: skip
