"""The handler alone, without TorchServe: what a batch of requests is answered."""

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.handler import Handler
from tests.serving.conftest import DECODE, DIM, expected, network, picture


class Context:
    """As much of TorchServe's context as a handler sees."""

    model_name = "digits-encoder"

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.model_yaml_config = config
        self.status: dict[int, tuple[int, str]] = {}
        self.types: dict[int, str] = {}

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.status[idx] = (code, phrase)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.types[idx] = value


@pytest.fixture(autouse=True)
def beside_the_decoder(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """In the archive decode.py is a top-level module; a loaded handler quietens the root logger."""
    monkeypatch.syspath_prepend(str(DECODE.parent))
    monkeypatch.delitem(sys.modules, "decode", raising=False)
    caplog.set_level("WARNING")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    network(tmp_path / "encoder.onnx")
    return Context(tmp_path)


@pytest.fixture
def handler(context: Context) -> Handler:
    handler = Handler()
    handler.initialize(context)
    return handler


@pytest.mark.parametrize("field", ["body", "data"])
def test_an_image_is_answered_by_compact_json_with_the_networks_vector(
    handler: Handler, context: Context, field: str
) -> None:
    png, pixels = picture(1)
    (answer,) = handler.handle([{field: bytearray(png)}], context)
    given = json.loads(answer)
    assert b" " not in answer
    assert {key: given[key] for key in ("model", "version", "dim")} == {
        "model": "digits-encoder",
        "version": "3",
        "dim": DIM,
    }
    np.testing.assert_allclose(given["embeddings"], [expected(pixels)], rtol=1e-5)
    assert context.types == {0: "application/json"}
    assert context.status == {}


def test_bad_images_have_their_own_status_and_harm_no_neighbour(handler: Handler, context: Context) -> None:
    good = [picture(seed) for seed in range(3)]
    bomb = bytearray(good[0][0])
    bomb[16:24] = (1 << 16).to_bytes(4, "big") * 2  # the header claims 65,536 × 65,536 pixels,
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")  # with a valid checksum
    bad = {1: b"", 3: b"plainly not an image", 4: bytes(bomb), 6: good[2][0][:-30]}
    bodies = [good[0][0], bad[1], good[1][0], bad[3], bad[4], good[2][0], bad[6]]
    answers = [json.loads(each) for each in handler.handle([{"body": body} for body in bodies], context)]
    assert {row: code for row, (code, _) in context.status.items()} == {1: 400, 3: 415, 4: 413, 6: 400}
    assert all(answers[row]["error"].endswith(".") for row in bad)
    for row, (_, pixels) in zip((0, 2, 5), good, strict=True):
        np.testing.assert_allclose(answers[row]["embeddings"], [expected(pixels)], rtol=1e-5)


def test_a_batch_without_one_good_image_and_a_request_without_a_body_are_answered(
    handler: Handler, context: Context
) -> None:
    answers = handler.handle([{}, {"data": "words of a form"}], context)
    assert len(answers) == 2
    assert {row: code for row, (code, _) in context.status.items()} == {0: 400, 1: 415}


@pytest.mark.parametrize(
    "metadata",
    [
        {"preprocess": "{}"},
        {"preprocess": '{"size": 5, "filter": "bilinear", "resize": "shorter side", "crop": "centre"}'},
        {"model": '{"version": "3", "dim": 128}'},
    ],
    ids=["no size", "a size that the network does not take", "a width that it does not give"],
)
def test_metadata_that_do_not_fit_are_found_at_loading(tmp_path: Path, metadata: dict[str, str]) -> None:
    network(tmp_path / "encoder.onnx", **metadata)
    with pytest.raises(RuntimeError, match="digits-encoder cannot be loaded"):
        Handler().initialize(Context(tmp_path))


def test_the_settings_of_the_archive_choose_the_threads(context: Context, tmp_path: Path) -> None:
    handler = Handler()
    handler.initialize(context)
    assert handler.session.get_session_options().intra_op_num_threads == 1
    handler.initialize(Context(tmp_path, {"handler": {"threads": 2}}))
    assert handler.session.get_session_options().intra_op_num_threads == 2
