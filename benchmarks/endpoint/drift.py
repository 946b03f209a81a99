"""`python -m benchmarks.endpoint.drift FRESH OTHER`: is the endpoint's drift higher for other images?

In a finished project: the champion on TorchServe embeds windows of FRESH, a folder of images that are like the training
images but were never seen; then the same images changed; then OTHER, a folder of other images.
"""

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.report import markdown
from pipelines.project import stage
from serving import ServingError
from serving.client import Client
from serving.deploy import deploy
from serving.host import promoted
from serving.host.command import Parser
from serving.host.runtime import Runtime
from serving.torchserve.process import Server
from serving.worker.drift import WINDOW
from serving.worker.metrics import DRIFT_EVERY, exposition

WINDOWS, OTHERS = 10, 3
# A whole window for each of two workers, whose shares differ a little, and what may come after the gauge was set last.
IMAGES = 5 * WINDOW // 2 + 2 * DRIFT_EVERY

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(min(image.size) / 16)),
    "inverted": ImageOps.invert,
    "half as bright": lambda image: image.point(lambda value: value // 2),
}


def shuffled(folder: Path) -> list[Path]:
    """All files, in an order that is the same each time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))]


def taken(paths: list[Path], windows: int) -> list[list[Path]]:
    """So many windows, one after the other; from the start again when there are no more."""
    return [[paths[(i * IMAGES + k) % len(paths)] for k in range(IMAGES)] for i in range(windows)]


def changed(path: Path, change: Callable[[Image.Image], Image.Image]) -> bytes:
    """As a PNG."""
    file = io.BytesIO()
    with Image.open(path) as image:
        change(image.convert("RGB")).save(file, "PNG")
    return file.getvalue()


def drift(runtime: Runtime, name: str) -> float:
    """The drift of a model that Prometheus reads."""
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(exposition(runtime.metrics).decode())
        for sample in family.samples
        if sample.name == "encoder_drift" and sample.labels["model"] == name
    ]
    return value


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endpoint.drift", description=__doc__)
    parser.add_argument("fresh", type=Path, help="a folder of unseen images like the training images")
    parser.add_argument("other", type=Path, help="a folder of other images")
    given = parser.parse_args()
    name = promoted.read(stage.PROMOTED).encoder
    fresh, other = shuffled(given.fresh), shuffled(given.other)
    windows, others = taken(fresh, WINDOWS), taken(other, OTHERS)
    with tempfile.TemporaryDirectory() as folder, Server(Runtime(Path(folder) / "run"), free_ports=True) as server:
        deploy(stage.PROMOTED, server.runtime)
        client = Client.of(server.runtime)

        def found(images: list[bytes]) -> float:
            for _ in client.embed_many(name, images):
                pass
            return drift(server.runtime, name)

        plain = [found([path.read_bytes() for path in window]) for window in windows]
        rows = [{"images": f"fresh, {WINDOWS} windows of {len(fresh):,} images", "drift": shown(plain)}]
        for change, how in CHANGES.items():
            values = [found([changed(path, how) for path in window]) for window in windows[:OTHERS]]
            rows.append({"images": change, "drift": shown(values)})
        values = [found([path.read_bytes() for path in window]) for window in others]
        rows.append({"images": given.other.name, "drift": shown(values)})
    print(f"{name}: an alarm is above 1\n\n{markdown(rows)}")


def shown(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    try:
        main()
    except ServingError as error:
        sys.exit(str(error))
