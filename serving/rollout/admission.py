"""Admit archives to the model store: check them file by file, and write them again.

TorchServe and Python read a zip file from different ends, so a crafted file could show them different contents. The
server therefore never gets the original archive, but a new one with the checked contents.
"""

import hashlib
import json
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from serving import ServingError
from serving.host.disk_space import lacking
from serving.host.promoted import Model
from serving.rollout import archive

MANIFEST = "MAR-INF/MANIFEST.json"
GOLDEN = "golden.npz"
# Bytes that a member may have, unpacked. An ONNX file without external data cannot have more than 2 GiB.
LIMITS = dict.fromkeys([MANIFEST, *archive.CODE], 1 << 20)
LIMITS |= {archive.NETWORK: 1 << 31, GOLDEN: 1 << 26, "drift.npz": 1 << 26}
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError)
OPTIONAL = {"drift.npz"}


def admit(model: Model, version: str, store: Path) -> Path:
    """Check the archive of `model` and write it into `store`, to be served as `version`; returns the file.

    Its name is its own SHA-256; the same archive gives the same file. Raises ServingError, which says what is wrong
    with the archive.
    """
    came, part = store / f"{model.name}.came", store / f"{model.name}.part"
    if model.archive.is_file() and (lack := lacking(store, 2 * model.archive.stat().st_size)):
        raise ServingError(f"The model {model.name} cannot be served from {model.archive}. {lack}")
    try:
        shutil.copyfile(model.archive, came)  # nobody can change the copy while it is checked
        if (digest := sha256(came)) != model.sha256:
            raise ServingError(
                f"The archive is not the promoted file (SHA-256 {digest[:12]}… instead of {model.sha256[:12]}…)."
            )
        with zipfile.ZipFile(came) as mar:
            _check(mar, model.version)
            with zipfile.ZipFile(part, "w") as out:
                _write(mar, out, model.name, version)
        place = store / f"{sha256(part)}.mar"
        part.replace(place)
    except FileNotFoundError as error:
        raise _refused(model, "The archive is missing.") from error
    except ServingError as error:
        raise _refused(model, str(error)) from error
    except BROKEN as error:
        raise _refused(model, f"The archive is not complete ({error}).") from error
    finally:
        came.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return place


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(model: Model, reason: str) -> ServingError:
    return ServingError(f"The model {model.name} cannot be served from {model.archive}. {reason} Run `make demo`.")


def _check(mar: zipfile.ZipFile, version: str) -> None:
    """Raises ServingError at the first file that the pipeline does not pack."""
    for member in mar.infolist():
        name = member.filename
        if name.startswith(("/", "\\")) or ".." in Path(name).parts:
            raise ServingError(f"The archive holds {name}, which leads out of its folder.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ServingError(f"The archive holds {name}, which is a link.")
        if name not in LIMITS:
            raise ServingError(f"The archive holds {name}, which the pipeline does not pack.")
        if member.file_size > LIMITS[name]:
            raise ServingError(f"The archive holds {name} with {member.file_size:,} bytes. Allowed: {LIMITS[name]:,}.")
    names = mar.namelist()
    if len(names) > len(set(names)):
        raise ServingError("The archive holds a file twice.")
    if missing := sorted(set(LIMITS) - OPTIONAL - set(names)):
        raise ServingError(f"The archive lacks {', '.join(missing)}.")
    for name, ours in archive.CODE.items():
        if mar.read(name) != ours.read_bytes():
            raise ServingError(f"The archive holds another version of {name} than this project.")
    if (packed := json.loads(mar.read(MANIFEST))["model"]["modelVersion"]) != version:
        raise ServingError(f"The archive is version {packed} instead of {version}.")


def _write(mar: zipfile.ZipFile, out: zipfile.ZipFile, name: str, version: str) -> None:
    for member in sorted(set(mar.namelist()) - {MANIFEST}):
        info = zipfile.ZipInfo(member)  # of 1980, so that the same members are the same file
        info.file_size = mar.getinfo(member).file_size
        with mar.open(member) as source, out.open(info, "w") as sink:
            shutil.copyfileobj(source, sink)
    model = {"modelName": name, "modelVersion": version, "serializedFile": archive.NETWORK}
    model |= {"handler": "handler.py", "configFile": "model-config.yaml"}
    out.writestr(zipfile.ZipInfo(MANIFEST), json.dumps({"runtime": "python", "model": model}))
