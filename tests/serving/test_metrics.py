"""What Prometheus is told, and that the dashboard asks for nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from serving.core import Encoder, Request
from serving.drift import sketch
from serving.metrics import Meter, exposition
from tests.serving.conftest import DIM, ROOT, SIZE, picture, unpacked

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: bytes, model: str) -> Samples:
    """Name and further labels → value, of one model."""
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.labels.get("model") == model:
                more = {key: value for key, value in sample.labels.items() if key not in ("model", "version")}
                found[sample.name, tuple(sorted(more.items()))] = sample.value
    return found


def test_requests_images_and_batches_are_counted_by_status(tmp_path: Path) -> None:
    encoder = Encoder(unpacked(tmp_path))
    encoder.meter = Meter("counted", "3", tmp_path / "drift.npz")
    png = picture(1)[0]
    encoder.answer("counted", [Request([png]), Request([b""]), Request([png, b"words", png])])
    encoder.answer("counted", [Request([b"words"])])
    found = samples(exposition(), "counted")
    assert {labels: n for (name, labels), n in found.items() if name == "encoder_requests_total"} == {
        (("status", "200"),): 2,
        (("status", "400"),): 1,
        (("status", "415"),): 1,
    }
    assert {labels: n for (name, labels), n in found.items() if name == "encoder_images_total"} == {
        (("status", "200"),): 3,
        (("status", "400"),): 1,
        (("status", "415"),): 2,
    }
    assert found["encoder_batch_images_sum", ()] == 3
    assert found["encoder_batch_images_count", ()] == 1  # the second batch had nothing to run
    assert found["encoder_decode_seconds_count", ()] == 2


def test_drift_is_told_once_the_window_is_full(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    encoder = Encoder(unpacked(tmp_path))

    def dark(n: int) -> list[Request]:
        pixels = generator.integers(0, 100, (n, 3 * SIZE * SIZE), np.uint8)
        return [Request([row.tobytes()], "application/x-uint8") for row in pixels]

    def embeddings(n: int) -> NDArray[np.float32]:
        images = np.stack([np.frombuffer(request.parts[0], np.uint8) for request in dark(n)])
        return encoder.embed(images.reshape(-1, 3, SIZE, SIZE))

    of = sketch(embeddings(1000), embeddings(500), window=50)
    of.save(tmp_path / "drift.npz")
    encoder.meter = Meter("drifting", "3", tmp_path / "drift.npz")
    encoder.answer("drifting", dark(49))
    assert ("encoder_drift", ()) not in samples(exposition(), "drifting")
    encoder.answer("drifting", dark(20))
    assert samples(exposition(), "drifting")["encoder_drift", ()] < 1
    bright = bytes([250]) * (3 * SIZE * SIZE)
    encoder.answer("drifting", [Request([bright], "application/x-uint8", probe="1")] * 50)  # nobody's images
    assert samples(exposition(), "drifting")["encoder_drift", ()] < 1
    encoder.answer("drifting", [Request([bright], "application/x-uint8")] * 50)
    assert samples(exposition(), "drifting")["encoder_drift", ()] > 1


def test_the_counts_of_several_processes_are_added_up(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from serving.metrics import Meter; import numpy as np; "
        f"Meter('shared', '3', Path('none')).count([200], [200, 200], np.zeros((2, {DIM}), np.float32), 0.1, 0.2)"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    found = samples(exposition(tmp_path), "shared")
    assert found["encoder_images_total", (("status", "200"),)] == 4
    assert found["encoder_inference_seconds_sum", ()] == 0.4


def test_the_dashboard_asks_for_what_there_is() -> None:
    board = json.loads((ROOT / "serving/grafana.json").read_text())
    asked = {name for panel in board["panels"] for target in panel["targets"]
             for name in re.findall(r"\b(?:encoder|ts)_\w+", target["expr"])}  # fmt: skip
    ours = {name for name in asked if name.startswith("encoder_")}
    Meter("any", "1", Path("none"))
    told = {
        sample.name for family in text_string_to_metric_families(exposition().decode()) for sample in family.samples
    }
    counters = {"encoder_requests_total", "encoder_images_total", "encoder_drift"}  # have no sample before the first
    assert ours <= told | counters
    assert counters <= ours
