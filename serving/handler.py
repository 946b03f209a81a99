"""Runs inside TorchServe: one batch of requests in, one JSON answer for each of them out.

Packed beside `decode.py` and the ONNX file; only those, NumPy and ONNX Runtime are needed, so the same class
runs under any server that gives it a list of requests and a context.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# What a request is told when its image is of no use; everything else that fails to decode is a plain 400.
STATUS = {"bomb": (413, "Payload Too Large"), "not an image": (415, "Unsupported Media Type")}


class Handler:
    """TorchServe calls `initialize` once a worker, then `handle` for every batch."""

    def initialize(self, context: Any) -> None:
        """Load the one ONNX file of the archive and check it against its own metadata.

        Raises RuntimeError, the only error that TorchServe reports at once instead of trying again.
        """
        try:
            self._load(Path(context.system_properties["model_dir"]), context.model_yaml_config or {})
        except Exception as error:
            raise RuntimeError(f"The archive of {context.model_name} cannot be loaded: {error!r}") from error
        # From here on TorchServe writes one line a batch at INFO.
        logging.getLogger().setLevel(logging.WARNING)

    def _load(self, folder: Path, config: dict[str, Any]) -> None:
        import PIL.Image  # noqa: F401, PLC0415 - the decoder takes it late; without it this worker must not start

        # decode.py lies beside this file in the archive, not in this package.
        from decode import Preprocess, Unusable  # type: ignore[import-not-found]  # noqa: PLC0415

        self.unusable = Unusable
        options = onnxruntime.SessionOptions()
        # More workers are quicker than more threads, and a spinning thread takes the decoder's core.
        options.intra_op_num_threads = config.get("handler", {}).get("threads", 1)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        (path,) = folder.glob("*.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.preprocess = Preprocess.from_json(metadata["preprocess"])
        model = json.loads(metadata["model"])
        self.version, self.dim = str(model["version"]), int(model["dim"])
        size = self.preprocess.size
        # Two images, so that a batch dimension frozen at 1 is found here and not by the second client.
        trial = self._embed(np.zeros((2, 3, size, size), np.uint8))
        if trial.shape != (2, self.dim) or not np.isfinite(trial).all():
            raise ValueError(f"two images gave {trial.shape}, the metadata promise 2 × {self.dim} finite")

    def _embed(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """uint8 (B, 3, S, S) → float32 (B, D)."""
        (embeddings,) = self.session.run(["embeddings"], {"images": images})
        return np.asarray(embeddings)

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer every request; an unusable image gets its own status and never harms its neighbours."""
        answers = [b""] * len(requests)
        images, rows = [], []
        for row, request in enumerate(requests):
            context.set_response_content_type(row, "application/json")
            try:
                images.append(self.preprocess(_body(request)))
                rows.append(row)
            except self.unusable as error:
                code, phrase = STATUS.get(error.kind, (400, "Bad Request"))
                context.set_response_status(code, phrase, row)
                answers[row] = _json({"error": f"This image is of no use: {error}."})
        if images:
            for row, embedding in zip(rows, self._embed(np.stack(images)).tolist(), strict=True):
                answers[row] = _json(
                    {
                        "model": context.model_name,
                        "version": self.version,
                        "dim": self.dim,
                        "embeddings": [embedding],
                    }
                )
        return answers


def _body(request: dict[str, Any]) -> bytes:
    """The image's bytes: a raw body, or the field `data` of a form; nothing is an empty image."""
    data = request.get("body") or request.get("data") or b""
    # A form's field without a file name arrives as text.
    return data.encode() if isinstance(data, str) else bytes(data)


def _json(answer: dict[str, Any]) -> bytes:
    # Bytes, because TorchServe would indent a dict by two spaces, one number a line.
    return json.dumps(answer, separators=(",", ":")).encode()
