"""Somebody's folder of images without labels, from one command to the endpoint, by one method alone."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.browser import check, look, needs_chromium
from tests.pipelines.conftest import write_digits
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
    assert '"model": "holiday-encoder"' in done.stdout
    assert {path.name for path in Path(flat[0].root, "artifacts", "methods").iterdir()} == {"dino"}
    assert re.search(r"^smallest cosine to torch over every endpoint: (1\.0|0\.9999)", done.stdout, re.MULTILINE)
    assert done.stdout.strip().endswith("/predictions/holiday-encoder")


def test_the_verdict_says_that_there_are_no_labels(flat: tuple[Project, "subprocess.CompletedProcess[str]"]) -> None:
    _, done = flat
    found = re.search(
        r"There are no labels, so that nothing here says what the encoders are good for: of (\d+) images of test (\w+) "
        r"finds [\d.]+ % again by a second view, a random encoder [\d.]+ %, raw pixels [\d.]+ %\..*\n(.*)\n",
        done.stdout,
    )
    assert found
    assert found[1] == "12"
    assert found[3].startswith((f"Nothing was learnt that shows: do not use {found[2]}", f"{found[2]} has learnt more"))
    assert found[3].endswith(f" {found[2]} was chosen by 6 images of val, which say little.")
    assert re.search(r"^encoder +retrieval *$", done.stdout, re.MULTILINE)


def test_the_table_of_unlabelled_images_is_not_called_top_1(
    flat: tuple[Project, "subprocess.CompletedProcess[str]"],
) -> None:
    assert "top-1" not in flat[1].stdout


@needs_chromium
def test_the_report_leaves_out_what_needs_labels(
    flat: tuple[Project, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    page = Path(flat[0].root, "artifacts", "report.html").read_text(encoding="utf-8")
    seen = look(page, tmp_path, 390)
    check(seen, 390, dark=False)
    assert "There are no labels" in "".join(seen.text.splitlines()[1:4])
    assert "The images have no labels: accuracies" in seen.text
    assert "confuses" not in seen.text
    assert "What each method thinks is similar" in seen.text
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
    figures = ", ".join(f"{m} {scores[m]:.1f}" for m in sorted(METHODS, key=lambda m: -scores[m]))
    assert promoted["reason"].startswith(f"retrieval of second views on 6 images of val: {figures}")
    assert promoted["reason"].endswith("; 6 images say little")
