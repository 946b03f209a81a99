"""TorchServe's management API is closed to all but its token, and to archives from elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import requests

from serving import ServingError
from serving.host.runtime import Runtime
from serving.torchserve.management import Management
from tests.serving.conftest import MakeArchive


@pytest.mark.parametrize("key", [None, "inference", "management"])
def test_only_the_api_key_makes_new_tokens(server: Runtime, key: Any) -> None:
    before = server.keys.read_bytes()
    headers = {"Authorization": f"Bearer {server.token(key)}"} if key else {}
    url = f"{server.address('management')}/token?type=inference"
    assert requests.get(url, headers=headers, timeout=20).status_code == 403
    assert server.keys.read_bytes() == before


@pytest.mark.parametrize("key", [None, "inference", "API"])
@pytest.mark.parametrize(("method", "path"), [("GET", "models"), ("POST", "models?url=x.mar"), ("PUT", "models/x")])
def test_management_is_closed_to_all_but_its_token(server: Runtime, key: Any, method: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {server.token(key)}"} if key else {}
    answer = requests.request(method, f"{server.address('management')}/{path}", headers=headers, timeout=20)
    assert (answer.status_code, answer.json()["type"]) == (403, "SecurityException")


def test_no_archive_comes_in_but_from_the_model_store(
    server: Runtime, tmp_path: Path, make_archive: MakeArchive
) -> None:
    mar = make_archive("7")
    for url in (f"file://{mar}", "http://127.0.0.1:1/x.mar", "https://127.0.0.1:1/x.mar", str(mar), "s3://x/x.mar"):
        with pytest.raises(ServingError, match=r"does not match any allowed URL|Model not found"):
            Management(server).register("stranger", url)
    with pytest.raises(ServingError, match="Relative path is not allowed"):
        Management(server).register("stranger", "../x.mar")
    assert "stranger" not in Management(server).names()
