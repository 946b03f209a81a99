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
    """Stage → the lines that the flow printed of it, each with the time before it."""
    lines: dict[str, list[str]] = {}
    for found in re.finditer(r"^ +[\d:]+  (\S+) +(.*)$", done.stdout, re.MULTILINE):
        lines.setdefault(found[1], []).append(found[2])
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


def test_the_flow_ends_with_answer_table_and_what_to_type(flows: Flows) -> None:
    """At most 25 lines, after at most two for a stage and one each half minute."""
    printed = flows.mended.stdout
    last = max(found.end() for found in re.finditer(r"^ +[\d:]+  \S+ +.*$", printed, re.MULTILINE))
    ending = printed[last:].strip().splitlines()
    assert len(ending) <= 25
    assert "answers match torch: smallest cosine 1.000000" in printed or "smallest cosine 0.9999" in printed
    assert any(re.match(r"[\d.]+ (s|min) in all\. From the plan on: estimated .*, took .*\.$", line) for line in ending)
    assert re.search(r'curl -H "Authorization: Bearer .*-T IMAGE http.*/predictions/digits-encoder$', ending[-1])
    assert any("artifacts/report.html" in line for line in ending)
    page = (flows.project.root / "artifacts" / "report.html").read_text(encoding="utf-8")
    answer = " ".join(ending[:3]).split(". ")[0]
    assert answer in re.sub(r"\s+", " ", page)
    pixels = flows.json("simclr", "metrics.json")["pixels"]
    best = max(pixels[f"{how}_1"] for how in ("linear", "knn"))
    assert any(re.match(rf"Raw pixels \+ .* {best:.1f} ± ", line) for line in ending)
    lines = shown(flows.mended)
    assert all(len([line for line in of if line.startswith(("running", "done"))]) <= 2 for of in lines.values())


def test_running_it_again_does_nothing(flows: Flows) -> None:
    assert flows.again.returncode == 0, flows.again.stderr
    assert flows.again.stdout.startswith(f"Nothing to do: all {len(EVERY)} stages are unchanged, and the endpoint ")
    assert flows.again.stdout.split("\n", 1)[1].split(" s in all")[0].rsplit("\n", 1)[0] in flows.mended.stdout
    assert shown(flows.again) == {}
    assert flows.before == flows.after


def test_dvc_alone_and_the_flow_know_of_each_other(flows: Flows) -> None:
    assert flows.changed.returncode == 0, flows.changed.stderr
    assert flows.tasks(2) == dict.fromkeys(EVERY, "Unchanged") | {"deploy": "Completed"}
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
    answer = seen.text.splitlines()[1]
    assert answer.split("\u00a0")[0] in " ".join(flows.mended.stdout.split())
    assert "How well are hidden patches filled in?" in seen.text
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
