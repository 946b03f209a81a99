"""torchvision and timm, where they are installed: the project does without, and only compares itself with them."""

import sys
from types import ModuleType
from typing import Any

import pytest


def peer(name: str) -> Any:
    """The module, or the test is skipped.

    Beside a CPU build of torch, torchvision fails to import where it registers its operators' meta versions
    (`operator torchvision::nms does not exist`); its models do without that.
    """
    known = "torchvision._meta_registrations"
    sys.modules.setdefault(known, ModuleType(known))
    return pytest.importorskip(name, reason=f"{name} is no dependency: install it to compare outputs")
