"""Files of weights that hold code, are damaged or hold no encoder are refused in one sentence."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models import CheckpointError
from models.encoders import public
from tests.models.conftest import VIT, small


class Runs:
    """What unpickling would do."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_by_the_codes_name_and_not_run(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "args": Runs()}, "code.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"^The file code\.pth asks to run posix\.mkdir, but only tensors are read\. Save "
    ):
        public.read(Path("code.pth"))
    assert not Path("ran").exists()


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_damaged_file_is_one_sentence(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    save: Callable[..., None] = torch.save if name == "weights.pth" else save_file
    save(small(VIT).state_dict(), path)
    cut(path, share)
    with pytest.raises(
        CheckpointError, match=rf"^The file {re.escape(str(path))} is damaged, or no checkpoint of torch or"
    ):
        public.read(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "holds list instead of names and tensors"),
        ({1: torch.zeros(1)}, "holds dict instead of names and tensors"),
        ({"model": torch.zeros(1)}, "holds Tensor instead of names and tensors"),
        ({"student": {}, "teacher": {1: torch.zeros(1)}}, "holds dict instead of names and tensors"),
        ({}, "has the unknown keys none. Use a file of MAE"),
        ({"state_dict": {"conv1.weight": torch.zeros(1)}}, "has the unknown keys state_dict. Use a file of MAE"),
        ({"model": {"cls_token": 5}}, "has entries that are no tensors: cls_token"),
        ({"model": {"cls_token": torch.tensor(torch.nan)}}, "has numbers that are not finite in cls_token"),
        ({"features.0.weight": torch.zeros(1)}, "has the unknown keys features.0.weight. Use a file of MAE"),
    ],
)
def test_what_holds_no_encoder_is_one_sentence(content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"^The file {re.escape(str(tmp_path / 'a.pth'))} {re.escape(sentence)}"):
        public.read(tmp_path / "a.pth")
