"""Probe the projection z = g(h) in the same way as the features h: SimCLR, section 4.2.

→ artifacts/methods/<method>/projection.csv, with the scores of <method>-projection.
"""

from torch import Tensor, nn

from data.shards import Prepared
from models.method import Pretraining
from models.methods import METHODS
from pipelines.evaluation import features, probe_protocol, scores
from pipelines.project import config, stage
from pipelines.reporting import pictures
from pipelines.saving.pretrained import Pretrained

READING = "projection"


class Projection(nn.Module):
    """Encoder f and projection head g: images (B, 3, S, S) → z (B, d)."""

    def __init__(self, method: Pretraining):
        super().__init__()
        assert isinstance(method.head, nn.Module)
        self.encoder, self.head = method.encoder, method.head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))  # type: ignore[no-any-return]


def main(name: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    trained = Pretrained.read(stage.artifact(name, "checkpoint.pt"))
    method = pictures.restored(name, c.method(name), trained, prepared.manifest.preprocess.size)
    z, _ = features.seen(Projection(method).eval(), prepared, c.seed)
    y = probe_protocol.labels(prepared)
    found = probe_protocol.readings(z, y, list(c.probe.shots), c.probe, c.seed) if y else []
    scores.write(
        stage.artifact(name, f"{READING}.csv"),
        [probe_protocol.score(reading, y, f"{name}-{READING}", c.seed) for reading in found],
    )


if __name__ == "__main__":
    stage.enter(f"studies.readings.{READING}", main, __doc__, METHODS)
