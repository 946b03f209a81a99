"""`python -m benchmarks.studies.attention FOLDER artifacts/methods/dino …`: does attention cover the garment?

FOLDER holds the photographs that `garments.json` names. The mask of 60 % of the class token's attention is
compared with the garment's outline, which was drawn by hand, and so is a central box of the same area. Baselines:
random encoders of the same architecture, and another photograph's mask, which shows where attention usually lies. The
upper limit is the outlines themselves, in patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.report import markdown
from benchmarks.studies import garments
from benchmarks.studies.garments import Photograph
from data.decoding.decode import Preprocess
from models.encoders.vit import ViT, ViTParams
from models.encoders.weights import Spec, restore
from models.evaluation.attention import attention, mass_mask
from serving.host.command import Parser

SHARE = 0.6  # of the attention's mass, the paper's
RANDOM = 3  # encoders
PER_CLASS = 4  # test photographs
MEAN = "mean of heads"
Figures = NDArray[np.float64]  # one per photograph
Photographs = Mapping[str, Sequence[Photograph]]  # of validation, to choose the head on, and of test


@dataclass(frozen=True)
class Overlaps:
    """Figures of one attention map, over photographs."""

    area: Figures  # what share of the picture the mask takes, and so the box
    iou: Figures
    covered: Figures  # what share of the garment the mask holds
    box_iou: Figures
    box_covered: Figures
    other_iou: Figures  # of another photograph's mask

    def row(self) -> dict[str, str]:
        """One row of the table, in percent."""
        gain = 100 * (self.iou - self.box_iou)
        low, high = interval(gain)
        return {
            "area": spread(self.area),
            "IoU": spread(self.iou),
            "box IoU": spread(self.box_iou),
            "difference, 95 %": f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f})",
            "wins": f"{(gain > 0).sum()} of {len(gain)}",
            "covered": spread(self.covered),
            "box covers": spread(self.box_covered),
            "another's IoU": spread(self.other_iou),
        }


def spread(figures: Figures) -> str:
    return f"{100 * figures.mean():.1f} ± {100 * figures.std(ddof=1):.1f}"


def interval(figures: Figures) -> tuple[float, float]:
    """95 % of the mean, by 10,000 bootstrap samples."""
    drawn = np.random.default_rng(0).choice(figures, (10_000, len(figures)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def overlaps(masks: NDArray[np.bool_], photos: Sequence[Photograph]) -> Overlaps:
    """masks: (photographs, rows, columns)."""
    areas = [garments.patches(mask) for mask in masks]
    others = areas[len(areas) // 2 :] + areas[: len(areas) // 2]
    rows = []
    for photo, mask, other in zip(photos, areas, others, strict=True):
        box = garments.box(mask.mean())
        mine, boxes, (another, _) = (garments.overlap(area, photo.garment) for area in (mask, box, other))
        rows.append([mask.mean(), *mine, *boxes, another])
    return Overlaps(*np.array(rows).T)


def looks(encoder: ViT, preprocess: Preprocess, photos: Sequence[Photograph]) -> dict[str, NDArray[np.float32]]:
    """Attention of each head and of their mean, each (photographs, rows, columns)."""
    maps = attention(encoder, torch.from_numpy(np.stack([preprocess(photo.data) for photo in photos])))
    heads = {f"head {i}": head.numpy() for i, head in enumerate(maps.unbind(dim=1), 1)}
    return {MEAN: maps.mean(dim=1).numpy()} | heads


def judge(encoder: ViT, preprocess: Preprocess, photos: Photographs) -> dict[str, Overlaps]:
    """On test: the mean of heads, and the head that was best against the box on validation."""
    found = {
        split: {
            how: overlaps(mass_mask(torch.from_numpy(look), SHARE).numpy(), some)
            for how, look in looks(encoder, preprocess, some).items()
        }
        for split, some in photos.items()
    }
    gains = {how: float((o.iou - o.box_iou).mean()) for how, o in found["validation"].items() if how != MEAN}
    return {how: found["test"][how] for how in (MEAN, max(gains, key=gains.__getitem__))}


def load(folder: Path) -> tuple[Spec, ViT]:
    """The encoder of artifacts/methods/<method>. Raises SystemExit when it is no vision transformer."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    spec: Spec = checkpoint["spec"]
    encoder = restore(spec, checkpoint["weights"])
    if not isinstance(encoder, ViT):
        raise SystemExit(f"The encoder in {folder} is a {spec['encoder']['arch']}. Allowed: a vision transformer.")
    return spec, encoder


def untrained(spec: Spec, encoder: ViT, seed: int) -> ViT:
    """Random encoders of the same architecture and normalisation."""
    torch.manual_seed(seed)
    normal = encoder.normalize
    made = ViTParams(**spec["encoder"]).build(
        spec["image_size"], normal.mean.flatten().tolist(), normal.std.flatten().tolist()
    )
    assert isinstance(made, ViT)
    return made


def rows(photos: Photographs, artifacts: Sequence[Path]) -> list[dict[str, str]]:
    """The rows of the table: each encoder; for each architecture, random encoders and the outlines in its patches."""
    found, architectures = [], {}
    for path in artifacts:
        spec, encoder = load(path)
        preprocess = Preprocess.from_json(spec["preprocess"])
        for how, each in judge(encoder, preprocess, photos).items():
            found.append({"encoder": str(path), "looks": how} | each.row())
        architectures[f"{spec['encoder']['arch']}/{encoder.patch_size}"] = spec, encoder, preprocess
    for name, (spec, encoder, preprocess) in architectures.items():
        several = [judge(untrained(spec, encoder, seed), preprocess, photos) for seed in range(RANDOM)]
        for how, runs in zip((MEAN, "best head"), zip(*(one.values() for one in several), strict=True), strict=True):
            together = Overlaps(*np.mean([astuple(run) for run in runs], axis=0))
            found.append({"encoder": f"random {name}, mean of {RANDOM}", "looks": how} | together.row())
        outlined = np.stack([garments.in_patches(photo.garment, encoder.grid) for photo in photos["test"]])
        found.append({"encoder": "the outlines", "looks": "in its patches"} | overlaps(outlined, photos["test"]).row())
    return found


def picture(photos: Sequence[Photograph], artifact: Path, side: int = 112) -> Image.Image:
    """Three rows: the photograph and its outline; attention, the mean of heads; its mask, and the box of its area."""
    spec, encoder = load(artifact)
    seen = looks(encoder, Preprocess.from_json(spec["preprocess"]), photos)[MEAN]
    step, whole = side + 4, (garments.SIDE, garments.SIDE)
    sheet = Image.new("RGB", (len(photos) * step - 4, 3 * step - 4), "white")
    for i, (photo, look) in enumerate(zip(photos, seen, strict=True)):
        mask = garments.patches(mass_mask(torch.from_numpy(look), SHARE).numpy())
        low, high = (garments.SIDE / 2 * (1 + sign * mask.mean() ** 0.5) for sign in (-1, 1))
        outlined, grey = photo.square.copy(), Image.fromarray(np.uint8(255 * look / look.max()))
        masked = Image.composite(
            photo.square, Image.new("RGB", whole, "black"), Image.fromarray(np.uint8(64 + 191 * mask))
        )
        for outline in photo.outlines:
            ImageDraw.Draw(outlined).polygon(outline, outline="magenta", width=4)
        ImageDraw.Draw(masked).rectangle([low, low, high, high], outline="yellow", width=4)
        sheet.paste(outlined.resize((side, side)), (i * step, 0))
        sheet.paste(grey.resize((side, side), Image.Resampling.NEAREST), (i * step, step))
        sheet.paste(masked.resize((side, side)), (i * step, 2 * step))
    return sheet.quantize(128)


def main() -> None:
    parser = Parser(prog="python -m benchmarks.studies.attention", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+", help="artifacts/methods/<method> of vision transformers")
    parser.add_argument(
        "--picture",
        type=Path,
        help="a PNG to write: one test photograph per class, and the attention of the first encoder",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    photos = {split: garments.photographs(given.folder, split) for split in ("validation", "test")}
    if given.picture:
        picture(photos["test"][::PER_CLASS], given.artifacts[0]).save(given.picture, optimize=True)
    print(markdown(rows(photos, given.artifacts)))


if __name__ == "__main__":
    main()
