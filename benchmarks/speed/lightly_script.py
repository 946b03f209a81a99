"""`python -m benchmarks.speed.lightly_script FOLDER`: SimCLR on CIFAR-10 as lightly's example trains it, images/s.

Its example (examples/pytorch/simclr.py) takes torchvision's ResNet-18 as it stands, batches of 256, 8 workers, SGD
and fp32. At 32 px that network does a tenth of the work of ours, whose stem is the published one for small images:
`with our stem` is the same script with that stem.
"""

import json
import sys
from pathlib import Path
from time import perf_counter
from types import ModuleType

import torch
from torch import nn
from torch.utils.data import DataLoader

from serving.host.command import Parser

if not torch.cuda.is_available():  # the CPU build lacks operators that torchvision registers; nothing here calls them
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))

import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform


def main() -> None:
    parser = Parser(prog="python -m benchmarks.speed.lightly_script", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=40.0)
    given = parser.parse_args()
    train = given.folder / "train" if (given.folder / "train").exists() else given.folder
    names = {"lightly's script": False, "lightly's script with our stem": True}
    print(json.dumps({name: rate(train, stem, given.seconds) for name, stem in names.items()}))


def rate(folder: Path, small_stem: bool, seconds: float) -> float:
    """images/s after the first batches."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resnet = torchvision.models.resnet18()
    if small_stem:
        resnet.conv1, resnet.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten(), SimCLRProjectionHead(512, 512, 128)).to(device)
    dataset = torchvision.datasets.ImageFolder(folder, SimCLRTransform(input_size=32, gaussian_blur=0.0))
    batch, workers = (256, 8) if device.type == "cuda" else (16, 1)
    loader = DataLoader(dataset, batch, shuffle=True, drop_last=True, num_workers=workers)
    criterion, optimizer = NTXentLoss(), torch.optim.SGD(model.parameters(), lr=0.06)
    begin, images, warm = perf_counter(), 0, 10 if device.type == "cuda" else 1
    while True:
        for (x0, x1), _ in loader:
            loss = criterion(model(x0.to(device)), model(x1.to(device)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            images += batch
            if images == warm * batch:
                loss.item()
                begin = perf_counter()
            if images > warm * batch and perf_counter() - begin > seconds:
                loss.item()
                return (images - warm * batch) / (perf_counter() - begin)


if __name__ == "__main__":
    main()
