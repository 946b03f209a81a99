"""Pack an encoder's ONNX file into a TorchServe archive (.mar)."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from serving import ServingError

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "encoder.onnx"
OURS = ("handler.py", "model-config.yaml")  # of serving/worker, packed at the top of the archive
PACKAGES = {  # packed under their own names
    "serving": ("__init__.py",),
    "serving/worker": ("__init__.py", "drift.py", "encoder.py", "metrics.py", "payload.py"),
    "data": ("__init__.py",),
    "data/decoding": ("__init__.py", "decode.py", "deep.py", "image_file.py"),
}
# The code of an archive → where it lies in this tree.
CODE = {part: ROOT / "serving" / "worker" / part for part in OURS}
CODE |= {f"{package}/{part}": ROOT / package / part for package, parts in PACKAGES.items() for part in parts}


def build(onnx: Path, out: Path, name: str, version: str, more: Sequence[Path] = ()) -> None:
    """Pack the network, the handler, the decoder and the model's settings into `out`, atomically.

    The decoder is the code that turned the training images into tensors. It is packed unchanged, and so are the files
    in `more`, each under its own name, such as `golden.npz` (serving/rollout/golden_images.py).
    Raises ServingError when a file is missing or TorchServe's archiver refuses.
    """
    parts = {NETWORK: onnx} | {path.name: path for path in more}
    parts |= {part if part in OURS else f"pack/{part}": path for part, path in CODE.items()}
    missing = [str(path) for path in parts.values() if not path.is_file()]
    if missing:
        raise ServingError(f"The archive {out} lacks {', '.join(missing)}. Run the earlier stages first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".archive-") as folder:
        stage = Path(folder)
        for part, path in parts.items():
            (stage / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, stage / part)
        arguments = {
            "--model-name": name,
            "--version": version,
            "--serialized-file": NETWORK,
            "--handler": "handler.py",
            "--extra-files": ",".join(["pack", *(path.name for path in more)]),
            "--config-file": "model-config.yaml",
            "--export-path": ".",
        }
        (stage / "tmp").mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "model_archiver.model_packaging", *sum(arguments.items(), ())],
            cwd=stage,
            # The archiver first deletes whatever is called `name` in the temporary folder: give it its own.
            env=os.environ | {"TMPDIR": str(stage / "tmp")},
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
            raise ServingError(f"The archive {out} could not be made from {onnx}: {reason.rstrip('.')}.")
        (stage / f"{name}.mar").replace(out)


def unpack(path: Path, folder: Path) -> None:
    """Write the files that an encoder is loaded from, out of an admitted archive, into a folder."""
    with zipfile.ZipFile(path) as mar:
        for part in {NETWORK, "drift.npz"} & set(mar.namelist()):
            (folder / part).write_bytes(mar.read(part))
