"""docs/tutorials/add-a-method.md, step by step: a fourth method goes to the endpoint, and a third kind of encoder."""

import json
import re
from collections.abc import Callable

import pytest
import torch
import yaml

from pipelines.saving.pretrained import Pretrained
from tests.pipelines.small_project import ROOT, Project, git, make

PAGE = (ROOT / "docs" / "tutorials" / "add-a-method.md").read_text(encoding="utf-8")
CODE = {
    kind: re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for kind in ("python", "diff", "yaml")
}
ENTRY = "models/methods/__init__.py"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after steps 1 to 3 of the page, committed; with fewer epochs."""
    project = make(tmp_path_factory.mktemp("fourth"))
    (project.root / "models/methods/simsiam.py").write_text(CODE["python"][0], encoding="utf-8")
    entry = project.root / ENTRY
    text = entry.read_text(encoding="utf-8")
    added, _, removed, replaced = CODE["diff"][0].splitlines()
    assert removed[1:] in text
    text = text.replace(removed[1:], replaced[1:]).replace("\nMETHODS", f"{added[1:]}\n\nMETHODS", 1)
    entry.write_text(text, encoding="utf-8")
    section = yaml.safe_load(CODE["yaml"][0])
    params = yaml.safe_load((project.root / "params.yaml").read_text()) | section
    (project.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git(project.root, "add", ".")
    git(project.root, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "fourth")
    project.set({"simsiam.epochs": 2})
    return project


def test_a_method_touches_one_file_one_entry_and_one_section(followed: Project) -> None:
    changed = git(followed.root, "diff", "--name-only", "HEAD~").split()
    assert sorted(changed) == ["models/methods/__init__.py", "models/methods/simsiam.py", "params.yaml"]
    assert len(CODE["python"][0].splitlines()) < 100


def test_it_goes_alone_from_the_images_to_the_endpoint(followed: Project) -> None:
    done = followed.flow()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    promoted = json.loads((followed.root / "artifacts/promoted.json").read_text())
    assert promoted["champion"] == "simsiam"
    assert [model["name"] for model in promoted["models"]] == ["digits-encoder", "digits-simsiam"]
    assert {path.name for path in (followed.root / "artifacts/methods").iterdir()} == {"simsiam"}
    page = (followed.root / "artifacts/report.html").read_text(encoding="utf-8")
    assert "The champion is SimSiam." in page
    assert not re.findall(r"<section[^>]*><h2>[^<]*</h2>\s*(?:<p[^>]*>[^<]*</p>\s*)*</section>", page)
    assert "answers match torch: smallest cosine" in done.stdout


def test_an_encoder_is_one_file_and_one_entry(followed: Project) -> None:
    """It is trained, read by the probes, and answers from ONNX as it does from torch."""
    (followed.root / "models/encoders/convmixer.py").write_text(CODE["python"][1], encoding="utf-8")
    added, _, entry = (line.removeprefix("+") for line in CODE["diff"][1].splitlines())
    path = followed.root / "models/encoders/__init__.py"
    text = path.read_text(encoding="utf-8").replace("\nfrom", f"\n{added}\nfrom", 1)
    path.write_text(text.replace("\n}", f"\n{entry}\n}}"), encoding="utf-8")
    followed.set({f"simsiam.{key}": value for key, value in yaml.safe_load(CODE["yaml"][1])["simsiam"].items()})
    for targets in (["settings"], ["probe@simsiam", "archive@simsiam"]):
        done = followed.dvc("repro", *targets)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    artifacts = followed.root / "artifacts/methods/simsiam"
    assert Pretrained.read(artifacts / "checkpoint.pt").spec["encoder"]["arch"] == "convmixer"
    assert json.loads((artifacts / "parity.json").read_text())["min_cosine"] > 0.99999


@pytest.fixture
def loss() -> Callable[..., float]:
    """The page's own loss of two given projections and predictions."""
    namespace: dict[str, object] = {"__name__": "simsiam"}
    exec(compile(CODE["python"][0], "add-a-method.md", "exec"), namespace)
    distance = namespace["distance"]
    assert callable(distance)
    return lambda p, z: float(distance(p, z))


def test_the_distance_is_the_negative_cosine_and_lets_no_gradient_through_z(loss: Callable[..., float]) -> None:
    p, z = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert loss(p, z) == pytest.approx(-24 / 25)
    assert loss(p, 7 * p) == pytest.approx(-1)
