"""Somebody's folder of images without labels, from one command to the endpoint, by one method alone."""

import contextlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from pipelines.evaluation.approach import title
from pipelines.reporting import results
from pipelines.reporting.ending import LINES, ending
from tests.browser import check, look, needs_chromium
from tests.pipelines.conftest import write_digits
from tests.pipelines.reporting.names import keys_in
from tests.pipelines.small_project import Project, make

EMPTY = r"<section[^>]*><h2>[^<]*</h2>\s*(?:<p[^>]*>[^<]*</p>\s*)*</section>"
METHODS = ("dino",)
TINY = {
    "methods": [*METHODS],
    "prepare.size": 16,
    "export.precision": "fp16",
    "pretrain.log_every": 1,
    "dino.epochs": 1,
    "dino.batch_size": 16,
    "dino.encoder.width": 8,
    "dino.local_size": 16,
    **{f"{method}.encoder.stem": "small/2" for method in ("simclr", "dino")},  # as deep as 16 px go
    "mae.encoder.patch_size": 4,
}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, "subprocess.CompletedProcess[str]"]:
    """Sixty images side by side, given to the flow."""
    folder = tmp_path_factory.mktemp("given") / "holiday"
    write_digits(folder, 60, labelled=False)
    project = make(tmp_path_factory.mktemp("unlabelled"))
    recipe = project.root / "recipes" / "tiny.yaml"
    recipe.write_text((project.root / "recipes" / "photos.yaml").read_text())
    project.set(TINY, "recipes/tiny.yaml")
    return project, project.flow(str(folder), "--recipe", "tiny")


def test_the_folder_becomes_a_served_encoder(flat: tuple[Project, "subprocess.CompletedProcess[str]"]) -> None:
    _, done = flat
    assert done.returncode == 0, done.stderr
    assert '"model": "holiday-encoder"' in (flat[0].root / ".scratch" / "logs" / "deploy.log").read_text()
    assert {path.name for path in Path(flat[0].root, "artifacts", "methods").iterdir()} == {"dino"}
    assert re.search(r" deploy +done in \d+ s · answers match torch: smallest cosine (1\.0|0\.9999)", done.stdout)
    assert done.stdout.strip().endswith("/predictions/holiday-encoder")


def test_the_verdict_says_that_there_are_no_labels(flat: tuple[Project, "subprocess.CompletedProcess[str]"]) -> None:
    with contextlib.chdir(flat[0].root):
        r = results.read()
    v = r.verdict()
    assert re.match(r"Do not use DINO|Do not rely on DINO yet|DINO learnt to recognise images", v.answer)
    assert [figure.label for figure in v.figures] == ["DINO", "Random encoder", "Raw pixels"]
    assert v.figures[0].note == "of 12 test images find their second view"
    assert v.caveats[0] == "There are no labels, so no accuracy was measured."
    assert v.caveats[-1] == "Only 6 validation images chose DINO. Others may be better on the test images."
    assert v.champion.startswith("The champion is DINO. It is the only method of this run.")
    lines = ending(r).splitlines()
    assert lines[0] == v.answer
    assert {"Test images in % that find their own second view among those of all others:"} < set(lines)
    assert not re.search("accuracy", "\n".join(lines))
    assert len(lines) <= LINES


@needs_chromium
def test_the_report_leaves_out_what_needs_labels(
    flat: tuple[Project, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    page = Path(flat[0].root, "artifacts", "report.html").read_text(encoding="utf-8")
    seen = look(page, tmp_path, 390)
    check(seen, 390, dark=False)
    assert keys_in(page) == set()
    assert "There are no labels, so no accuracy was measured." in seen.text
    assert "Accuracies and the confusion matrix need labels" in seen.text
    assert "confuse?" not in seen.text
    assert seen.text.index("Nearest neighbours by DINO") < seen.text.index("Keep in mind")
    assert "Which images does each method find similar?" in seen.text
    assert not re.findall(EMPTY, page)


def test_finding_a_second_view_decides(flat: tuple[Project, "subprocess.CompletedProcess[str]"]) -> None:
    project, _ = flat
    scores = {}
    for method in METHODS:
        metrics = json.loads(project.artifact(method, "metrics.json").read_text())
        assert all(
            {k.removeprefix("val_") for k in figures} == {"retrieval", "between_images"} for figures in metrics.values()
        )
        scores[method] = metrics[method]["val_retrieval"]
    promoted = json.loads(Path(project.root, "artifacts", "promoted.json").read_text())
    figures = ", ".join(f"{title(m)} {scores[m]:.1f} %" for m in sorted(METHODS, key=lambda m: -scores[m]))
    assert promoted["reason"] == (
        "It is the only method of this run. Validation images that find their own second view among all others: "
        f"{figures} (6 images). 6 validation images are few, so this choice is uncertain."
    )
