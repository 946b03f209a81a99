"""What Prometheus is told, and that counting ends no process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from serving.worker.drift import sketch
from serving.worker.encoder import Encoder, Request
from serving.worker.metrics import Meter, exposition
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
        "from pathlib import Path; from serving.worker.metrics import Meter; import numpy as np; "
        f"Meter('shared', '3', Path('none')).count([200], [200, 200], np.zeros((2, {DIM}), np.float32), 0.1, 0.2)"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    found = samples(exposition(tmp_path), "shared")
    assert found["encoder_images_total", (("status", "200"),)] == 4
    assert found["encoder_inference_seconds_sum", ()] == 0.4


FULL = """
import shutil, sys
from pathlib import Path
import numpy as np
from serving import ServingError
from serving.rollout.admission import admit
from serving.torchserve.management import Management
from serving.worker.metrics import Meter
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from serving.torchserve.upkeep import Upkeep
here = Path.cwd() / "small"
meters = [Meter("first", "1", Path("none"))]
(here / "filler").write_bytes(bytes(shutil.disk_usage(here).free))
meters.append(Meter("second", "1", Path("none")))
for meter in meters:
    for status in range(200, 220):
        meter.count([status], [status], np.zeros((1, 5), np.float32), 0.1, 0.1)
printed = []
upkeep = Upkeep(Runtime(here), printed.append)
upkeep.look()
print(upkeep.faults["disk"])
for refused in (lambda: admit(Model("digits", "simclr", "3", Path(sys.argv[0]), "0"), "3", here),
                lambda: Management(Runtime(here)).rotate("inference")):
    try:
        refused()
    except ServingError as error:
        print(error)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_on_a_full_disk_a_process_lives_and_what_cannot_be_written_is_told(tmp_path: Path, when: str) -> None:
    """Full before the process counts first, or after: a mapped file without room behind it ended the process."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    (tmp_path / "small").mkdir()
    (tmp_path / "program.py").write_text(FULL)
    full = "" if when == "after" else "&& cat /dev/zero > small/zeros "
    script = f'mount -t tmpfs -o size=2m tmpfs small {full}; exec "$@"'
    command = [unshare, "--mount", "sh", "-c", script, "sh", sys.executable, "program.py"]
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "small"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small = tmp_path / "small"
    disk, archive, token = done.stdout.splitlines()
    assert disk.startswith(f"The disk of {small} has 0.0 MB free, but 16.8 MB are needed. Free some space. ")
    assert archive.startswith(
        f"The model digits cannot be served from program.py. The disk of {small} has 0.0 MB free, but "
    )
    assert token.startswith(
        f"No new token can be written to {small}/key_file.json. The disk of {small} has 0.0 MB free"
    )
