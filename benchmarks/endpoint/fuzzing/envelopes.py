"""The parts around a body: first lines, headers, and the framing that says where the body ends."""

from hypothesis import strategies as st

from benchmarks.endpoint.fuzzing.bodies import PIXELS, text
from benchmarks.endpoint.fuzzing.exchange import LINE, request
from benchmarks.endpoint.fuzzing.files import FILE, FILES

WORD = (st.text(max_size=20).map(text) | st.binary(max_size=20)).map(lambda word: word.translate(None, b"\r\n"))
NAMES = [b"Content-Type", b"Accept", b"x-normalize", b"x-probe", b"Content-Encoding", b"Expect", b"Connection",
         b"Upgrade", b"Accept-Encoding", b"Range", b"Origin", b"Cookie", b"Authorization", b"Host",
         b"ts_request_sequence_id"]  # fmt: skip
TYPES = [b"image/png", b"image/*", b"application/octet-stream", b"application/json", b"application/x-npy", b"text/html",
         b"application/x-uint8", b"application/x-www-form-urlencoded", b"application/JSON; charset=utf-16",
         b"multipart/form-data", b"multipart/form-data; boundary=b", b";", b"/"]  # fmt: skip
VALUES = [b"", b"l2", b"L2", b"l1", b"golden", b"*/*", b"gzip", b"100-continue", b"close", b"keep-alive", b"h2c",
          b"0", b"-1", b"Bearer", b"Bearer x", b"Basic YTpi", b"a" * 9000, "é".encode(), b"\0"]  # fmt: skip
METHODS = [b"PUT", b"GET", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"post", b"X"]
VERSIONS = [b"1.0", b"0.9", b"2.0", b"x"]
ADDRESSES = [b"{name}/", b"{name}/1", b"{name}/1/x", b"{name}?a=%zz", b"%zz", b"..", b"%00", b""]
ODD_LINE = st.one_of(
    st.sampled_from(METHODS).map(lambda method: LINE.replace(b"POST", method)),
    st.sampled_from(VERSIONS).map(lambda version: LINE.replace(b"1.1", version)),
    (st.sampled_from(ADDRESSES) | WORD).map(lambda address: LINE.replace(b"{name}", address)),
)
PAIR = st.tuples(st.sampled_from(NAMES) | WORD, st.sampled_from(TYPES + VALUES) | WORD).map(b": ".join)
BODY = FILE | st.sampled_from([b"", b"{}", PIXELS])
HEADERS = st.builds(request, st.lists(PAIR | WORD, max_size=6), BODY, st.just(LINE)) | st.builds(
    request, st.lists(PAIR, max_size=1), BODY, ODD_LINE
)

LENGTHS = [
    b"",
    b"0",
    b"1",
    b"-1",
    b"99",
    b"1000000",
    b"20971520",
    b"20971521",
    b"99999999999",
    b"1e3",
    b"0x10",
    b"5, 5",
]
CODINGS = [b"chunked", b"chunked", b"gzip, chunked", b"x", b"identity"]
FRAME = st.sampled_from(
    [b"Content-Length: " + length for length in LENGTHS] + [b"Transfer-Encoding: " + coding for coding in CODINGS]
)
SIZE = st.sampled_from([b"3", b"0", b"-1", b"ffffffffff", b"3;x=y", b"", b"g"])
CHUNK = st.builds(lambda size, data: size + b"\r\n" + data + b"\r\n", SIZE, st.sampled_from([b"abc", b"", FILES[0]]))
CHUNKS = st.lists(CHUNK, max_size=4).map(b"".join)
ANOTHER = b"GET / HTTP/1.1\r\n\r\n"
FRAMED = CHUNKS | st.sampled_from([b"", FILES[0], ANOTHER])
FRAMING = st.builds(request, st.lists(FRAME, min_size=1, max_size=2), FRAMED, st.just(LINE) | ODD_LINE)
