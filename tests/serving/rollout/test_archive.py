"""Archives: what is in them, and what is said when they cannot be made."""

import json
import tempfile
import zipfile
from pathlib import Path

import pytest

from serving import ServingError
from serving.rollout import archive
from tests.serving.conftest import ROOT, MakeArchive, network


def test_an_archive_holds_its_files_and_names_the_handler(make_archive: MakeArchive) -> None:
    with zipfile.ZipFile(make_archive("7")) as mar:
        assert sorted(mar.namelist()) == [
            "MAR-INF/MANIFEST.json",
            "data/__init__.py",
            "data/decoding/__init__.py",
            "data/decoding/decode.py",
            "data/decoding/deep.py",
            "data/decoding/image_file.py",
            "drift.npz",
            "encoder.onnx",
            "golden.npz",
            "handler.py",
            "model-config.yaml",
            "serving/__init__.py",
            "serving/worker/__init__.py",
            "serving/worker/drift.py",
            "serving/worker/encoder.py",
            "serving/worker/metrics.py",
            "serving/worker/payload.py",
        ]
        assert mar.read("data/decoding/decode.py") == (ROOT / "data" / "decoding" / "decode.py").read_bytes()
        model = json.loads(mar.read("MAR-INF/MANIFEST.json"))["model"]
    assert (model["modelName"], model["modelVersion"], model["handler"]) == ("digits", "7", "handler.py")


def test_an_earlier_archive_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    out = tmp_path / "made" / "encoder.mar"
    for version in ("1", "2"):
        archive.build(network(tmp_path / "any.onnx", version), out, "digits", version)
    assert [path.name for path in out.parent.iterdir()] == ["encoder.mar"]
    assert json.loads(zipfile.ZipFile(out).read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"] == "2"


def test_the_archivers_habit_of_emptying_a_temporary_folder_of_that_name_harms_nobody(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as precious:
        out = tmp_path / "encoder.mar"
        archive.build(network(tmp_path / "any.onnx"), out, Path(precious).name, "1")
        assert Path(precious).is_dir()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"lacks .*absent\.onnx\. Run the earlier stages first\."):
        archive.build(tmp_path / "absent.onnx", tmp_path / "encoder.mar", "digits", "1")


def test_a_name_that_torchserve_refuses_is_one_sentence(tmp_path: Path) -> None:
    onnx = network(tmp_path / "any.onnx")
    with pytest.raises(ServingError, match="could not be made") as error:
        archive.build(onnx, tmp_path / "encoder.mar", "a name with spaces", "1")
    assert "Traceback" not in str(error.value)
    assert not (tmp_path / "encoder.mar").exists()
