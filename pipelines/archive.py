"""Stage archive@<method>: encoder.onnx → encoder.mar for TorchServe, with the handler and the decoder inside."""

import json

from models.methods import METHODS
from pipelines.project import stage
from serving import ServingError
from serving.rollout import archive


def main(name: str) -> None:
    receipt = json.loads(stage.artifact(name, "version.json").read_text(encoding="utf-8"))
    out = stage.artifact(name, "encoder.mar")
    try:
        archive.build(
            onnx=stage.artifact(name, "encoder.onnx"),
            out=out,
            name=f"{receipt['model'].removesuffix('-encoder')}-{name}",
            version=receipt["version"],
            more=[stage.artifact(name, "golden.npz"), stage.artifact(name, "drift.npz")],
        )
    except ServingError as error:
        raise stage.StageError(str(error)) from None
    print(f"Packed {out}: {out.stat().st_size / 1e6:.1f} MB.")


if __name__ == "__main__":
    stage.enter("archive", main, __doc__, METHODS)
