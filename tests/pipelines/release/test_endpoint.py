"""When the check of the endpoint may be skipped."""

import json
from pathlib import Path

import pytest

from pipelines.project import stage
from pipelines.release import endpoint


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose endpoint has been checked, with files of no content."""
    monkeypatch.chdir(tmp_path)
    archive = stage.artifact("mae", "encoder.mar")
    for path in (archive, Path("requirements.lock"), Path("serving/app.py"), endpoint.VERIFIED):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    model = {"name": "digits-mae", "version": "1", "method": "mae", "archive": str(archive), "sha256": "0" * 64}
    promoted = {"dataset": "digits", "encoder": "digits-encoder", "champion": "mae", "models": [model], "reason": ""}
    stage.PROMOTED.write_text(json.dumps(promoted))
    endpoint.VERIFIED.write_text(json.dumps({"of": endpoint.deployed()}))
    assert endpoint.is_verified()
    return archive


@pytest.mark.parametrize("changed", ["artifacts/methods/mae/encoder.mar", "serving/app.py", "requirements.lock"])
def test_what_changes_its_answers_asks_for_a_new_check(served: Path, changed: str) -> None:
    Path(changed).write_text("other")
    assert not endpoint.is_verified()


@pytest.mark.parametrize(
    "gone", ["artifacts/promoted.json", "artifacts/methods/mae/encoder.mar", ".scratch/endpoint.json"]
)
def test_what_is_gone_asks_for_a_new_check(served: Path, gone: str) -> None:
    Path(gone).unlink()
    assert not endpoint.is_verified()
