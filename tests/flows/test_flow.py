"""The flow runs the whole pipeline, as its user sees it: broken, mended, run again, changed and changed back."""

import json
import re
import shutil
from pathlib import Path

import pytest

from models.methods import BASELINES
from tests.browser import check, look, needs_chromium
from tests.flows.project import Done, Flows
from tests.pipelines.small_project import METHODS, Project, git

STAGES = ("pretrain", "probe", "finetune", "register", "export", "archive")
EVERY = {"settings", "download@digits", "prepare", "promote", "report"}
EVERY |= {f"{stage}@{m}" for stage in STAGES for m in METHODS} | {f"baseline@{c}" for c in BASELINES}


def shown(done: Done) -> dict[str, list[str]]:
    """Stage → the lines that the flow printed of it."""
    lines: dict[str, list[str]] = {}
    for text in done.stdout.splitlines():
        name, *rest = text.split(maxsplit=1)[:2] if text.split() else [""]
        lines.setdefault(name, []).append("".join(rest))
    return lines


def test_a_stage_that_fails_has_the_last_word_and_stops_only_its_dependants(flows: Flows) -> None:
    assert flows.broken.returncode == 1
    last = flows.broken.stderr.strip().splitlines()[-1]
    why = r"Training diverged: the loss( on held-out images)? is (nan|inf) at step \d+ of \d+\. Lower dino\.optim\.lr"
    assert re.match(f"pretrain@dino: {why}", last)
    assert "Traceback" not in flows.broken.stdout + flows.broken.stderr
    stages = shown(flows.broken).keys()
    assert {f"{stage}@{m}" for stage in STAGES for m in ("simclr", "mae")} <= stages
    assert not {"promote", "report", *(f"{stage}@dino" for stage in STAGES if stage != "pretrain")} & stages
    states = flows.tasks(0)
    assert states["pretrain@dino"] == "Failed"
    assert {states[name] for name in EVERY if name.endswith("@simclr")} == {"Completed"}
    assert {states.get(name) for name in ("probe@dino", "promote")} <= {"NotReady", "Pending", None}


def test_the_mended_flow_does_only_what_was_missing(flows: Flows) -> None:
    assert flows.mended.returncode == 0, flows.mended.stderr
    new = {"promote", "report", *(f"{stage}@dino" for stage in STAGES)}
    states = flows.tasks(1)
    assert {name for name, state in states.items() if state == "Completed"} == new | {"deploy", "plan"}
    assert {name for name, state in states.items() if state == "Unchanged"} == EVERY - new


def test_the_flow_ends_with_table_answer_and_the_line_to_type(flows: Flows) -> None:
    printed = flows.mended.stdout
    (answer,) = re.findall(r"^the endpoint answers (.*)$", printed, re.MULTILINE)
    promoted = flows.json("promoted.json")
    encoder = re.escape(f'"model": "digits-encoder", "version": "{promoted["models"][0]["version"]}"')
    assert re.search(rf'"image": "data/raw/digits/\d/\d+\.png", {encoder}, "dim": \d+, "embedding": \[', answer)
    assert re.search(r"^smallest cosine to torch over every endpoint: (1\.0|0\.9999)", printed, re.MULTILINE)
    assert re.search(r'curl -H "Authorization: Bearer .*-T IMAGE http.*/predictions/digits-encoder$', printed.strip())
    for method in METHODS:
        for who in (method, f"random-{method}", "pixels"):
            f = flows.json(method, "metrics.json")[who]
            few = rf"{f['linear_1']:.1f} ± {f['linear_1_sd']:.1f}"
            assert re.search(rf"^{who} +linear probe +{few} .*{f['linear_all']:.1f} *$", printed, re.MULTILINE)
            assert re.search(rf"^{who} +kNN .*{f['knn_all']:.1f} *$", printed, re.MULTILINE)
        tuned = flows.json(method, "finetune.json")[method]["finetune_all"]
        assert re.search(rf"^{method} +fine-tuned .*{tuned:.1f} *$", printed, re.MULTILINE)


def test_running_it_again_does_nothing(flows: Flows) -> None:
    assert flows.again.returncode == 0, flows.again.stderr
    assert {name for name, lines in shown(flows.again).items() if lines[0] == "unchanged"} == EVERY
    assert flows.tasks(2) == dict.fromkeys(EVERY, "Unchanged") | {"deploy": "Completed"}
    assert flows.before == flows.after


def test_dvc_alone_and_the_flow_know_of_each_other(flows: Flows) -> None:
    assert flows.changed.returncode == 0, flows.changed.stderr
    assert flows.tasks(3) == dict.fromkeys(EVERY, "Unchanged") | {"deploy": "Completed"}
    assert flows.project.dvc("repro", "--dry").stdout.count("didn't change, skipping") == len(EVERY)
    assert json.loads(flows.project.dvc("status", "report", "--with-deps", "--json").stdout) == {}


def test_a_colleagues_clone_has_everything_and_nothing_to_do(flows: Flows, tmp_path: Path) -> None:
    """`git clone`, `dvc pull`, `dvc checkout` and `dvc status` end with 0; no set that nobody asked for is missed."""
    flows.project.dvc("remote", "add", "--force", "--local", "--default", "store", str(tmp_path / "store"))
    assert flows.project.dvc("push").returncode == 0
    git(tmp_path, "clone", "--quiet", str(flows.project.root), "clone")
    clone = Project(tmp_path / "clone")
    for name in ("dvc.lock", "params.yaml"):  # as if they had been committed
        shutil.copyfile(flows.project.root / name, clone.root / name)
    clone.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    for command in ("pull", "checkout"):
        done = clone.dvc(command)
        assert done.returncode == 0, done.stderr
    assert clone.dvc("status").stdout == "Data and pipelines are up to date.\n"
    assert flows.project.dvc("status").stdout == "Data and pipelines are up to date.\n"


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1440, False), (1440, True)])
def test_the_report_opens_with_the_verdict_and_is_readable(
    flows: Flows, tmp_path: Path, width: int, dark: bool
) -> None:
    page = (flows.project.root / "artifacts" / "report.html").read_text(encoding="utf-8")
    seen = look(page, tmp_path, width, dark)
    check(seen, width, dark)
    assert len(page) < 3e6
    _, *verdict = seen.text.splitlines()[:4]
    assert all(sentence in flows.mended.stdout for sentence in verdict)
    assert "What is filled in where an image is hidden" in seen.text
    assert seen.charts > 10
    assert len(seen.images) > 10


def test_dvc_draws_the_figures_of_the_page(flows: Flows) -> None:
    done = flows.project.dvc("plots", "show", "--json")
    assert done.returncode == 0, done.stderr
    plots = json.loads(done.stdout)["data"]
    assert plots.keys() == {"label efficiency", "training", "confusion of the champion"}
    page = (flows.project.root / "artifacts" / "report.html").read_text(encoding="utf-8")
    points = plots["label efficiency"][0]["content"]["data"]["values"]
    assert all(f"{p['accuracy']:.1f}" in page for p in points)
    losses = [p for p in plots["training"][0]["content"]["data"]["values"] if p["signal"] == "loss"]
    assert {p["method"] for p in losses} == set(METHODS)
