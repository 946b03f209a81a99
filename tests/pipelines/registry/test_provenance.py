"""What registration reads of DVC while DVC may be writing."""

from pathlib import Path

import pytest

from pipelines.project.stage import StageError
from pipelines.registry import provenance

WHOLE = "schema: '2.0'\nstages:\n  prepare:\n    outs:\n    - path: data/prepared\n      md5: abc.dir\n"


@pytest.mark.parametrize("half", ["", "schema: '2.0'\n", "schema: '2.0'\nstages:\n", "stages: {a: ["])
def test_a_lock_file_that_is_being_written_is_read_again(
    half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(half)
    monkeypatch.setattr("pipelines.registry.provenance.time.sleep", lambda seconds: Path("dvc.lock").write_text(WHOLE))
    assert provenance.dvc_digest("prepare", "outs", "data/prepared") == "abc.dir"
    assert provenance.dvc_digest("pretrain@mae", "outs", "x") == "unknown"


def test_a_lock_file_that_stays_broken_is_a_sentence_and_none_at_all_is_outside_dvc(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {a: [")
    with pytest.raises(StageError, match="cannot be read"):
        provenance.locked_stages(tmp_path / "dvc.lock", seconds=0)
    assert provenance.locked_stages(tmp_path / "absent") == {}
