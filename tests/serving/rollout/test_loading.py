"""The second server's models: an archive with two names is loaded once, a bad one keeps no other from being served."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from serving import ServingError
from serving.host import promoted
from serving.rollout.loading import load
from serving.worker.encoder import Request
from tests.serving.conftest import MakeArchive, entry, picture, promote


def test_an_archive_with_two_names_is_loaded_once_and_answers_by_the_name_that_was_asked(
    make_archive: MakeArchive, tmp_path: Path
) -> None:
    mar = make_archive()
    models = promoted.read(promote(tmp_path, entry("champion", mar), entry("simclr", mar))).models
    with ExitStack() as stack:
        encoders, faults = load(models, 1, stack)
        assert faults == []
        assert encoders["champion"].session is encoders["simclr"].session
        for name, encoder in encoders.items():
            (answer,) = encoder.answer(name, [Request([picture(1)[0]])])
            assert f'"model":"{name}"'.encode() in answer.body
            assert encoder.meter is not None
            assert encoder.meter.of == (name, "3")


def test_a_bad_archive_is_left_out_and_named(make_archive: MakeArchive, tmp_path: Path) -> None:
    listed = {
        "absent": entry("absent", make_archive()) | {"archive": "absent.mar"},
        "broken": entry("broken", make_archive(preprocess="{}")),
        "sound": entry("sound", make_archive()),
    }
    with ExitStack() as stack:
        encoders, faults = load(promoted.read(promote(tmp_path, *listed.values())).models, 1, stack)
        assert list(encoders) == ["sound"]
        assert [fault.split(" cannot be served from ")[0] for fault in faults] == [
            "The model absent",
            "The model broken",
        ]
        with pytest.raises(ServingError, match=r"^The model absent cannot be served from "):
            load(promoted.read(promote(tmp_path, listed["absent"])).models, 1, stack)
