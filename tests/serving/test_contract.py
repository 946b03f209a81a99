"""docs/reference/http.md and openapi.yaml, word by word, against both servers."""

import base64
import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import urlsplit

import jsonschema
import numpy as np
import pytest
import requests
import yaml

from serving.client import Client
from serving.host.runtime import Runtime
from tests.serving.conftest import DIM, ROOT, SIZE, bomb, expected, picture, wide
from tests.serving.worker.test_encoder import REFUSED

API: dict[str, Any] = yaml.safe_load((ROOT / "serving/openapi.yaml").read_text())
PNG, PIXELS = picture(1)
TENSOR = PIXELS.transpose(2, 0, 1)[None]
FORBIDDEN = {"server": 403, "second": 401}  # TorchServe has no 401


@pytest.fixture(params=["server", "second"])
def endpoint(request: pytest.FixtureRequest) -> Runtime:
    """TorchServe, and the FastAPI application."""
    return cast(Runtime, request.getfixturevalue(request.param))


def ask(endpoint: Runtime, name: str = "digits-encoder", **given: Any) -> requests.Response:
    """A request whose answer must be one that openapi.yaml describes."""
    headers = {"Authorization": f"{given.pop('scheme', 'Bearer')} {endpoint.token('inference')}"}
    headers |= given.pop("headers", {})
    url = f"{endpoint.address('inference')}/predictions/{name}"
    response = requests.request(given.pop("method", "POST"), url, headers=headers, timeout=20, **given)
    check(response)
    return response


def check(response: requests.Response, path: str = "/predictions/{name}", method: str = "post") -> None:
    """Status, type and body are as described."""
    described = API["paths"][path][method]["responses"][str(response.status_code)]
    if "$ref" in described:
        described = API["components"]["responses"][described["$ref"].split("/")[-1]]
    kinds = described.get("content", {})
    if kinds and (response.content or response.ok):
        kind = response.headers["content-type"].split(";")[0]
        assert kind in kinds
        if kind == "application/json":
            schema = kinds[kind]["schema"] | {"components": API["components"]}
            jsonschema.Draft202012Validator(schema).validate(response.json())


def npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


BODIES: dict[str, dict[str, Any]] = {
    "image/png": {"data": PNG, "headers": {"Content-Type": "image/png"}},
    "octets": {"data": PNG, "headers": {"Content-Type": "application/octet-stream"}},
    "PUT without a type": {"data": PNG, "method": "PUT"},
    "curl --data-binary": {"data": PNG, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    "a token of bearer": {"data": PNG, "scheme": "bearer"},
    "JSON": {"json": {"images": [base64.b64encode(PNG).decode()]}},
    "a form's file": {"files": {"data": ("a.png", PNG, "image/png")}},
    "tensor": {"data": TENSOR.tobytes(), "headers": {"Content-Type": "application/x-uint8"}},
    "npy": {"data": npy(TENSOR), "headers": {"Content-Type": "application/x-npy"}},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_every_body_that_is_described_gives_the_networks_vector(endpoint: Runtime, body: dict[str, Any]) -> None:
    answer = ask(endpoint, **body)
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["embeddings"], [expected(PIXELS)], rtol=1e-5)
    assert {key: answer.json()[key] for key in ("model", "version", "dim")} == {
        "model": "digits-encoder",
        "version": "3",
        "dim": DIM,
    }


@pytest.mark.parametrize("accept", ["application/octet-stream", "application/x-npy"])
def test_bytes_come_on_request(endpoint: Runtime, accept: str) -> None:
    files = {"a": PNG, "b": b"rubbish"}
    answer = ask(endpoint, files=files, headers={"Accept": accept, "x-normalize": "l2"})
    body = answer.content
    rows = np.load(io.BytesIO(body)) if accept.endswith("npy") else np.frombuffer(body, "<f4").reshape(2, DIM)
    unit = expected(PIXELS) / np.linalg.norm(expected(PIXELS))
    np.testing.assert_allclose(rows[0], unit, rtol=1e-5)
    assert np.isnan(rows[1]).all()
    assert answer.headers["x-version"] == "3"
    assert '"index":1' in answer.headers["x-errors"]


def test_however_many_images_are_bad_the_header_stays_short_and_json_has_every_reason(endpoint: Runtime) -> None:
    files = {str(row): b"rubbish" if row % 2 else PNG[:-30] for row in range(64)}
    header = ask(endpoint, files=files, headers={"Accept": "application/octet-stream"}).headers["x-errors"]
    full = ask(endpoint, files=files).json()["errors"]
    assert len(header) <= 2048
    assert [(e["index"], e["status"]) for e in json.loads(header)] == [
        (row, 415 if row % 2 else 400) for row in range(64)
    ]
    assert all("error" in each for each in full)
    client = Client.of(endpoint)
    found = client.embed_many("digits-encoder", list(files.values()), batch=64)
    assert [str(each) for each in found] == [f"The image: {each['error']}" for each in full]


def test_one_bad_image_of_many_fails_alone(endpoint: Runtime) -> None:
    pictures = [picture(seed) for seed in range(20)]
    files = {str(row): b"rubbish" if row == 7 else png for row, (png, _) in enumerate(pictures)}
    given = ask(endpoint, files=files).json()
    assert given["embeddings"].pop(7) is None
    assert [(error["index"], error["status"]) for error in given["errors"]] == [(7, 415)]
    rest = [expected(pixels) for row, (_, pixels) in enumerate(pictures) if row != 7]
    np.testing.assert_allclose(given["embeddings"], rest, rtol=1e-4, atol=1e-5)


def test_parts_of_one_name_are_all_answered(endpoint: Runtime) -> None:
    """A page's `<input type=file multiple>` sends its files so."""
    pictures = [picture(seed) for seed in range(3)]
    answer = ask(endpoint, files=[("photos", (f"{n}.png", png, "image/png")) for n, (png, _) in enumerate(pictures)])
    assert answer.status_code == 200
    rows = [expected(pixels) for _, pixels in pictures]
    np.testing.assert_allclose(answer.json()["embeddings"], rows, rtol=1e-4, atol=1e-5)


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A form's body and type; a part of a name, without a file name."""
    lines = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data for name, data in parts]
    return b"\r\n".join([*lines, b"--B--\r\n"]), "multipart/form-data; boundary=B"


def test_a_form_may_come_in_chunks_and_its_parts_without_file_names(endpoint: Runtime) -> None:
    body, kind = form(("a", PNG), ("b", PNG))
    chunks = (body[i : i + 100] for i in range(0, len(body), 100))
    answer = ask(endpoint, data=chunks, headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["embeddings"], [expected(PIXELS)] * 2, rtol=1e-5)


@pytest.mark.parametrize("n", [65, 66, 200, 1200])
def test_too_many_parts_are_413_however_many(endpoint: Runtime, n: int) -> None:
    assert ask(endpoint, files={str(i): PNG for i in range(n)}).status_code == 413


STATUS: dict[str, tuple[int, dict[str, Any]]] = {
    "empty": (400, {"data": b""}),
    "truncated": (400, {"data": PNG[:-30]}),
    "not an image": (415, {"data": b"words"}),
    "more than 8 bits": (415, {"data": wide(1)[0]}),
    "a decompression bomb": (413, {"data": bomb(PNG)}),
    "too many bytes": (413, {"data": bytes(21 << 20), "headers": {"Content-Type": "image/png"}}),
    "an unknown model": (404, {"data": PNG, "name": "nobody"}),
    "an unknown version": (404, {"data": PNG, "name": "digits-encoder/99"}),
}


@pytest.mark.parametrize(("status", "given"), STATUS.values(), ids=STATUS)
def test_what_is_refused_has_its_status(endpoint: Runtime, status: int, given: dict[str, Any]) -> None:
    assert ask(endpoint, **given).status_code == status


@pytest.mark.parametrize("case", [case for case, (request, *_) in REFUSED.items() if request.parts])
def test_what_the_core_refuses_every_server_refuses(endpoint: Runtime, case: str) -> None:
    asked, status, sentence = REFUSED[case]
    one = len(asked.parts) == 1
    body: dict[str, Any] = (
        {"data": asked.parts[0]} if one else {"files": {str(i): part for i, part in enumerate(asked.parts)}}
    )
    headers = {"Content-Type": asked.content_type, "x-normalize": asked.normalize}
    answer = ask(endpoint, headers={key: value for key, value in headers.items() if value}, **body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_the_version_is_in_the_address(endpoint: Runtime) -> None:
    assert ask(endpoint, "digits-encoder/3", data=PNG).json()["version"] == "3"


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}])
def test_strangers_are_turned_away(endpoint: Runtime, header: dict[str, str], request: pytest.FixtureRequest) -> None:
    url = f"{endpoint.address('inference')}/predictions/digits-encoder"
    answer = requests.post(url, data=PNG, headers=header, timeout=20)
    check(answer)
    which = next(name for name in FORBIDDEN if request.node.callspec.params["endpoint"] == name)
    assert answer.status_code == FORBIDDEN[which]


def test_ping_answers_who_has_the_token(endpoint: Runtime, request: pytest.FixtureRequest) -> None:
    url, which = f"{endpoint.address('inference')}/ping", request.node.callspec.params["endpoint"]
    headers = {"Authorization": f"Bearer {endpoint.token('inference')}"}
    known, stranger = requests.get(url, headers=headers, timeout=20), requests.get(url, timeout=20)
    assert (known.status_code, stranger.status_code) == (200, FORBIDDEN[which])
    for answer in (known, stranger):
        check(answer, "/ping", "get")
    assert known.json() == {"status": "Healthy"}


def test_a_page_of_another_origin_learns_nothing(endpoint: Runtime) -> None:
    """No CORS headers, as the docs say, neither for what a browser asks first nor for the request itself."""
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "POST"):
        headers = origin | {"Authorization": f"Bearer {endpoint.token('inference')}"}
        url = f"{endpoint.address('inference')}/predictions/digits-encoder"
        answer = requests.request(method, url, data=PNG, headers=headers, timeout=20)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_many_clients_at_once_each_get_their_own_vector(endpoint: Runtime) -> None:
    pictures = [picture(seed) for seed in range(100)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda each: ask(endpoint, data=each[0]).json(), pictures))
    for answer, (_, pixels) in zip(answers, pictures, strict=True):
        np.testing.assert_allclose(answer["embeddings"], [expected(pixels)], rtol=1e-4, atol=1e-5)


def test_clients_that_go_away_in_the_middle_leave_the_server_well(endpoint: Runtime) -> None:
    place = urlsplit(endpoint.address("inference"))
    head = (
        f"POST /predictions/digits-encoder HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Authorization: Bearer {endpoint.token('inference')}\r\nContent-Length: {len(PNG)}\r\n\r\n"
    ).encode()

    def give_up(bodies: bytes) -> None:
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(head + bodies)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(give_up, [PNG, PNG[:10]] * 20))
    np.testing.assert_allclose(ask(endpoint, data=PNG).json()["embeddings"], [expected(PIXELS)], rtol=1e-5)


def test_the_description_names_the_limits_that_hold() -> None:
    body = API["paths"]["/predictions/{name}"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["properties"]["images"]["maxItems"] == 64
    assert TENSOR.size == SIZE * SIZE * 3
