"""Stage promote: the best encoder gets the alias `champion`, each method's newest its own; artifacts/promoted.json.

The best is the best on val, which no probe was fitted on. Without labels the retrieval of a second view decides.
"""

import hashlib
import json
import sys
from typing import Any

from models.methods import METHODS
from pipelines import config, stage, tracking


def main() -> None:
    c = config.load()
    read: dict[str, dict[str, Any]] = {
        m: {f: json.loads(stage.artifact(m, f"{f}.json").read_text()) for f in ("metrics", "version", "parity")}
        for m in METHODS
    }
    labelled = all(f"val_{c.promote.metric}" in read[m]["metrics"][m] for m in METHODS)
    metric = f"val_{c.promote.metric if labelled else 'retrieval'}"
    scores = {m: read[m]["metrics"][m][metric] for m in METHODS}
    champion = max(METHODS, key=lambda m: scores[m])
    beaten = ", ".join(f"{m} {scores[m]:.1f}" for m in METHODS if m != champion)
    reason = f"{metric} {scores[champion]:.1f} against {beaten}"
    client = tracking.connect()
    for m in METHODS:
        version, parity = read[m]["version"], read[m]["parity"]
        for model, number in (
            (version["model"], version["version"]),
            (parity["onnx_model"], parity["onnx_version"]),
        ):
            client.set_registered_model_alias(model, m, number)
            client.set_model_version_tag(model, number, metric, scores[m])
            if m == champion:
                client.set_registered_model_alias(model, "champion", number)
                client.set_model_version_tag(model, number, "promoted_because", reason)
    served = [(f"{c.dataset}-encoder", champion), *((f"{c.dataset}-{m}", m) for m in METHODS)]
    promoted = {
        "dataset": c.dataset,
        "champion": champion,
        "reason": reason,
        "models": [
            {
                "name": name,
                "method": m,
                "version": read[m]["version"]["version"],
                "archive": str(stage.artifact(m, "encoder.mar")),
                "sha256": hashlib.sha256(stage.artifact(m, "encoder.mar").read_bytes()).hexdigest(),
            }
            for name, m in served
        ],
    }
    stage.PROMOTED.write_text(json.dumps(promoted, indent=2) + "\n")
    print(f"champion of {c.dataset}: {champion}, version {read[champion]['version']['version']} ({reason})")
    if not labelled:
        print("no labels: retrieval of a second view decided, which favours SimCLR's own objective", file=sys.stderr)


if __name__ == "__main__":
    stage.run("promote", main)
