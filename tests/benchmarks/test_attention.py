"""Outlines lie where the photograph has its garment, and what attention is compared with is what it says."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.studies import attention, garments
from data.decoding.decode import Preprocess
from models.encoders.resnet import ResNetParams
from models.encoders.vit import Block, ViT, ViTParams

PHOTOS = json.loads(Path("benchmarks/studies/garments.json").read_text())["photos"]
LAW = Preprocess(64)


def test_four_of_each_class_are_judged_and_two_others_chosen_on() -> None:
    counted = Counter(tuple(Path(name).parts[:2]) for name in PHOTOS)
    assert {split: sorted(counted[split, c] for s, c in counted if s == split) for split in ("test", "validation")} == {
        "test": [4] * 10,
        "validation": [2] * 10,
    }


def test_every_outline_is_a_good_part_of_its_photograph() -> None:
    for name, outlines in PHOTOS.items():
        corners = np.array([corner for outline in outlines for corner in outline])
        assert ((corners >= 0) & (corners <= 100)).all(), name
        areas = []
        for outline in outlines:
            x, y = np.array(outline, dtype=float).T
            areas.append(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 / 100**2)  # the shoelace formula
        assert 0.1 < sum(areas) < 0.9, name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every photograph of garments.json, as white garments on black; portrait, landscape, square."""
    root = tmp_path_factory.mktemp("clothing")
    for i, (name, outlines) in enumerate(PHOTOS.items()):
        size = [(160, 213), (213, 160), (160, 160)][i % 3]
        image = Image.new("RGB", size)
        for outline in outlines:
            ImageDraw.Draw(image).polygon([(x / 100 * size[0], y / 100 * size[1]) for x, y in outline], fill="white")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name, quality=95)
    return root


@pytest.fixture(scope="module")
def photos(folder: Path) -> attention.Photographs:
    return {split: garments.photographs(folder, split) for split in ("validation", "test")}


def test_a_garment_lies_where_decoding_leaves_it(photos: attention.Photographs) -> None:
    for photo in photos["test"]:
        white = np.asarray(photo.square)[:, :, 0] > 127
        iou, covered = garments.overlap(white.astype(float), photo.garment)
        assert min(iou, covered) > 0.95


@pytest.mark.parametrize("area", [0.01, 0.3, 0.6, 1.0])
def test_a_box_has_the_area_that_it_is_given_and_lies_in_the_middle(area: float) -> None:
    box = garments.box(area)
    assert box.mean() == pytest.approx(area)
    assert np.allclose(box, box[::-1, ::-1])
    iou, covered = garments.overlap(box, garments.box(0.36))
    assert iou == pytest.approx(min(area, 0.36) / max(area, 0.36), rel=0.01)
    assert covered == pytest.approx(min(1, area / 0.36), rel=0.01)


def bright() -> ViT:
    """Its class token looks at every patch that is brighter than the mean grey, at each alike."""
    encoder = ViT(ViTParams("vit_nano", 4), 64, (0.5,) * 3, (0.25,) * 3).requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.zero_()
    encoder.patch_embed.proj.weight[0] = 1
    encoder.cls_token[..., 0] = 1
    for block in encoder.blocks:
        assert isinstance(block, Block)
        block.norm1.weight.fill_(1)
        block.attn.qkv.weight[[0, 32, 64, 96], 0] = 1  # queries and keys of both heads
    return encoder


def test_who_looks_at_the_garment_beats_the_box(photos: attention.Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SHARE", 0.999)  # of 60 % of a flat garment's attention much would lie in the middle
    found = attention.judge(bright(), LAW, photos)
    assert next(iter(found)) == attention.MEAN
    for overlaps in found.values():
        assert overlaps.iou.min() > 0.75  # patches are coarse
        assert overlaps.covered.min() > 0.85
        assert (overlaps.iou > overlaps.box_iou).all()
        assert overlaps.other_iou.mean() < overlaps.iou.mean()
        assert overlaps.row()["wins"] == "40 of 40"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = {"encoder": asdict(ViTParams("vit_nano", 4)), "image_size": 64, "preprocess": LAW.to_json()}
    path = tmp_path_factory.mktemp("artifacts") / "dino"
    path.mkdir()
    torch.save({"weights": bright().state_dict(), "spec": spec}, path / "checkpoint.pt")
    return path


def test_random_encoders_stand_beside_it(photos: attention.Photographs, artifact: Path) -> None:
    rows = attention.rows({split: some[::4] for split, some in photos.items()}, [artifact])
    random = "random vit_nano/4, mean of 3"
    assert [row["encoder"] for row in rows] == [str(artifact), str(artifact), random, random, "the outlines"]
    assert [row["looks"].split()[0] for row in rows] == ["mean", "head", "mean", "best", "in"]
    assert rows[4]["wins"] == "10 of 10"
    for row in rows[2:4]:  # they look everywhere alike: at 60 % of the patches, whichever
        assert 55 < float(row["area"].split()[0]) < 61
        assert int(row["wins"].split(" of ")[0]) < 5 == int(row["wins"].split(" of ")[1]) / 2


def test_the_picture_shows_the_attention(photos: attention.Photographs, artifact: Path) -> None:
    some = photos["test"][::20]
    sheet = attention.picture(some, artifact, side=garments.SIDE)
    step = garments.SIDE + 4
    assert sheet.size == (2 * step - 4, 3 * step - 4)
    for i, photo in enumerate(some):
        cell = sheet.convert("L").crop((i * step, step, i * step + garments.SIDE, 2 * step - 4))
        assert garments.overlap((np.asarray(cell) > 127).astype(float), photo.garment)[0] > 0.75


def test_a_convolutional_encoder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    params = ResNetParams("resnet10", width=8, stem="small")
    weights = params.build(16, (0.5,) * 3, (0.25,) * 3).state_dict()
    torch.save({"weights": weights, "spec": {"encoder": asdict(params), "image_size": 16}}, tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit, match=r"is a resnet10\. Allowed: a vision transformer"):
        attention.load(tmp_path)


def test_the_interval_is_that_of_the_mean() -> None:
    figures = np.random.default_rng(1).normal(3, 2, 400)
    low, high = attention.interval(figures)
    assert (low + high) / 2 == pytest.approx(figures.mean(), abs=0.02)
    assert (high - low) / 2 == pytest.approx(1.96 * figures.std() / 20, rel=0.05)
