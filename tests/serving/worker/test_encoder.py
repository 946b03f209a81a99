"""The core alone, without a server: what a batch of requests is answered."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

import serving.worker.encoder
from serving.worker.encoder import LATE, Encoder, Request
from serving.worker.payload import BYTES, JSON, NPY, TENSOR, chosen
from tests.serving.conftest import DIM, SIZE, bomb, expected, picture, unpacked, wide

ONE, OTHER = picture(1), picture(2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(unpacked(tmp_path_factory.mktemp("archive")))


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def images(*parts: bytes | str) -> bytes:
    return json.dumps({"images": [p if isinstance(p, str) else base64.b64encode(p).decode() for p in parts]}).encode()


PIXELS = np.stack([pixels.transpose(2, 0, 1) for _, pixels in (ONE, OTHER)])
BOTH = {
    "form": Request([ONE[0], OTHER[0]], "multipart/form-data; boundary=x"),
    "JSON": Request([images(ONE[0], OTHER[0])], "application/json; charset=utf-8"),
    "tensor": Request([PIXELS.tobytes()], TENSOR),
    "npy": Request([npy(PIXELS)], NPY),
}


@pytest.mark.parametrize("request_", BOTH.values(), ids=BOTH)
def test_every_kind_of_body_gives_the_same_vectors(encoder: Encoder, request_: Request) -> None:
    (answer,) = encoder.answer("digits-encoder", [request_])
    given = json.loads(answer.body)
    assert answer.status == 200
    assert b" " not in answer.body
    assert {k: given[k] for k in given if k != "embeddings"} == {"model": "digits-encoder", "version": "3", "dim": DIM}
    np.testing.assert_allclose(given["embeddings"], [expected(ONE[1]), expected(OTHER[1])], rtol=1e-5)


@pytest.mark.parametrize("accept", [BYTES, NPY])
def test_bytes_are_the_same_vectors_and_say_what_json_says(encoder: Encoder, accept: str) -> None:
    request = Request([ONE[0], b"rubbish", OTHER[0]], accept=accept)
    (answer,) = encoder.answer("m", [request])
    body = answer.body
    rows = np.load(io.BytesIO(body)) if accept == NPY else np.frombuffer(body, "<f4").reshape(-1, DIM)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[[0, 2]], [expected(ONE[1]), expected(OTHER[1])], rtol=1e-5)
    assert np.isnan(rows[1]).all()
    assert answer.content_type == accept
    assert {key: answer.headers[key] for key in ("x-model", "x-version", "x-dim")} == {
        "x-model": "m",
        "x-version": "3",
        "x-dim": str(DIM),
    }
    assert [(e["index"], e["status"]) for e in json.loads(answer.headers["x-errors"])] == [(1, 415)]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/octet-stream, */*", BYTES),
        ("*/*;q=0.1, application/x-npy", NPY),
        ("application/octet-stream;q=0.5, application/json", JSON),
        ("application/octet-stream;q=0, */*", JSON),
        ("image/png;q=nonsense, APPLICATION/X-NPY ;q=0.2", NPY),
    ],
)
def test_of_several_accepted_types_the_most_wanted_is_sent(accept: str, kind: str) -> None:
    assert chosen(accept) == kind


def test_normalised_vectors_have_length_one_and_the_same_direction(encoder: Encoder) -> None:
    black = bytes(3 * SIZE * SIZE)
    plain, unit, none = encoder.answer(
        "m",
        [
            Request([ONE[0]], accept=BYTES),
            Request([ONE[0]], accept=BYTES, normalize="l2"),
            Request([black], TENSOR, BYTES, "l2"),
        ],
    )
    vector, direction = (np.frombuffer(a.body, "<f4") for a in (plain, unit))
    np.testing.assert_allclose(direction, vector / np.linalg.norm(vector), rtol=1e-5)
    assert not np.frombuffer(none.body, "<f4").any()  # a vector of zeros has no direction, and is not NaN


def test_bad_images_have_their_own_status_and_harm_no_neighbour(encoder: Encoder) -> None:
    good = [picture(seed) for seed in range(3)]
    bodies = [good[0][0], b"", good[1][0], b"plainly not an image", bomb(good[0][0]), good[2][0], good[2][0][:-30]]
    bad = {1: 400, 3: 415, 4: 413, 6: 400}
    alone = encoder.answer("m", [Request([body]) for body in bodies])
    (together,) = encoder.answer("m", [Request(bodies)])
    assert {row: answer.status for row, answer in enumerate(alone) if answer.status != 200} == bad
    given = json.loads(together.body)
    assert together.status == 200
    assert {error["index"]: error["status"] for error in given["errors"]} == bad
    for error in given["errors"]:
        assert json.loads(alone[error["index"]].body) == {"error": error["error"]}
        assert error["error"].endswith(".")
    assert [row for row, vector in enumerate(given["embeddings"]) if vector is None] == list(bad)
    for row, (_, pixels) in zip((0, 2, 5), good, strict=True):
        np.testing.assert_allclose(given["embeddings"][row], expected(pixels), rtol=1e-5)
        np.testing.assert_allclose(json.loads(alone[row].body)["embeddings"], [expected(pixels)], rtol=1e-5)


REFUSED = {
    "no part": (Request([]), 400, "0 images"),
    "too many parts": (Request([ONE[0]] * 65), 413, "65 images"),
    "no JSON": (Request([b"{"], JSON), 400, "The JSON is not"),
    "another key": (Request([b'{"image": []}'], JSON), 400, 'lacks "images"'),
    "a text for a list": (Request([b'{"images": "x"}'], JSON), 400, "not a list"),
    "a list": (Request([b"[]"], JSON), 400, "The JSON is not"),
    "deep": (Request([b"[" * 100_000], JSON), 400, "The JSON is not"),
    "no image in JSON": (Request([images()], JSON), 400, "0 images"),
    "too many in JSON": (Request([images(*[ONE[0]] * 65)], JSON), 413, "65 images"),
    "not base64": (Request([images("%%")], JSON), 400, "not base64"),
    "a number": (Request([b'{"images": [1]}'], JSON), 400, "int instead of a text"),
    "an empty tensor": (Request([b""], TENSOR), 400, "0 bytes"),
    "part of a tensor": (Request([PIXELS.tobytes()[:-1]], TENSOR), 400, "not whole images"),
    "too many in a tensor": (Request([bytes(65 * 3 * SIZE * SIZE)], TENSOR), 413, "65 images"),
    "floats": (Request([npy(PIXELS.astype("f4"))], NPY), 400, "float32"),
    "another size": (Request([npy(PIXELS[..., :-1])], NPY), 400, "(2, 3, 4, 3)"),
    "Fortran order": (Request([npy(np.asfortranarray(PIXELS))], NPY), 400, "Fortran"),
    "a file cut short": (Request([npy(PIXELS)[:-1]], NPY), 400, "95 bytes"),
    "objects": (Request([npy(np.array([{}], dtype=object))], NPY), 400, "object"),
    "no .npy": (Request([b"words"], NPY), 400, "The tensor is not"),
    "a header that is no header": (Request([npy(PIXELS).replace(b"(2, 3, 4, 4)", b"(10**9, 3,4,4")], NPY), 400, "not"),
    "a shape that is not there": (Request([npy(PIXELS).replace(b"(2, 3, 4, 4)", b"(9999,3,4,4)")], NPY), 400, "9999"),
    "another length": (Request([ONE[0]], normalize="l1"), 400, "Allowed: l2"),
}


def test_an_image_of_more_than_8_bits_is_refused_or_mapped_by_the_range_of_the_training(
    encoder: Encoder, tmp_path: Path
) -> None:
    png, pixels = wide(1)
    (refused,) = encoder.answer("m", [Request([png])])
    assert refused.status == 415
    assert json.loads(refused.body) == {
        "error": "This image cannot be used: its values are 16-bit integers, and no range says which of them become 0 "
        "and 255; convert it to 8 bits."
    }
    spec = {"size": SIZE, "filter": "bilinear", "resize": "shorter side", "crop": "centre", "range": [684, 1194]}
    trained = Encoder(unpacked(tmp_path, preprocess=json.dumps(spec)))
    (answer,) = trained.answer("m", [Request([png])])
    np.testing.assert_allclose(json.loads(answer.body)["embeddings"], [expected(pixels)], rtol=1e-5)


@pytest.mark.parametrize(("request_", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_of_no_use_is_a_status_and_a_sentence(
    encoder: Encoder, request_: Request, status: int, reason: str
) -> None:
    wrong, right = encoder.answer("m", [request_, Request([ONE[0]])])
    assert wrong.status == status
    (sentence,) = json.loads(wrong.body).values()
    assert reason in sentence
    assert sentence.endswith(".")
    assert right.status == 200


def test_who_has_no_turn_in_time_is_told_so_and_light_requests_come_first(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.worker.encoder, "DECODING", -1)
    heavy = io.BytesIO()
    Image.new("RGB", (40, 40)).save(heavy, "PNG")
    late, light = encoder.answer("m", [Request([heavy.getvalue()] * 2), Request([ONE[0], OTHER[0]])])
    assert [error["index"] for error in json.loads(late.body)["errors"]] == [0, 1]
    given = json.loads(light.body)
    assert given["errors"] == [{"index": 1} | LATE.json()]
    (alone,) = encoder.answer("m", [Request([heavy.getvalue()])])
    (tensors,) = encoder.answer("m", [BOTH["tensor"]])
    assert (alone.status, tensors.status) == (200, 200)


def test_long_batches_run_in_pieces(encoder: Encoder) -> None:
    many = np.random.default_rng(0).integers(0, 256, (100, 3, SIZE, SIZE), np.uint8)
    whole = encoder.session.run(None, {"images": many})[0]
    np.testing.assert_allclose(encoder.embed(many), whole, rtol=1e-6)
    encoder.chunk = 7
    np.testing.assert_allclose(encoder.embed(many), whole, rtol=1e-6)


def test_several_threads_keep_the_order(tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in range(50)]
    answers = Encoder(unpacked(tmp_path), threads=4).answer("m", [Request([png]) for png, _ in pictures])
    for answer, (_, pixels) in zip(answers, pictures, strict=True):
        np.testing.assert_allclose(json.loads(answer.body)["embeddings"], [expected(pixels)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "metadata",
    [
        {"preprocess": "{}"},
        {"preprocess": '{"size": 5, "filter": "bilinear", "resize": "shorter side", "crop": "centre", "range": null}'},
        {"model": '{"version": "3", "dim": 128}'},
    ],
    ids=["no size", "a size that the network does not take", "a width that it does not give"],
)
def test_metadata_that_do_not_fit_are_found_at_loading(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(Exception, match=r"size|Got: 5 Expected: 4|two images gave"):
        Encoder(unpacked(tmp_path, **metadata))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_of_one_alone_is_found_at_loading(tmp_path: Path, threads: int) -> None:
    (path,) = unpacked(tmp_path).glob("*.onnx")
    network = onnx.load(path)
    for value in (*network.graph.input, *network.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, path)
    with pytest.raises(Exception, match="Got: 2 Expected: 1"):
        Encoder(tmp_path, threads)


def test_a_run_of_the_network_takes_one_thread(encoder: Encoder) -> None:
    assert encoder.session.get_session_options().intra_op_num_threads == 1
