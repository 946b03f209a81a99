"""The endpoint of a real TorchServe, asked by curl and by the client."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from benchmarks.endpoint.processes import java
from serving import ServingError
from serving.client import Client, ImageError, grouped
from serving.host.runtime import Api, Runtime, settings
from serving.torchserve.management import Management
from serving.worker import encoder
from tests.serving.conftest import ROOT, entry, expected, picture, promote


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    path.write_bytes(picture(1)[0])
    return path


@pytest.mark.parametrize("name", ["digits-encoder", "digits-simclr"])
def test_both_names_give_the_networks_vector(server: Runtime, name: str) -> None:
    png, pixels = picture(2)
    vector = Client.of(server).embed(name, png)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected(pixels), rtol=1e-5)


@pytest.mark.parametrize(
    "upload",
    [
        "-T {png}",
        "--data-binary @{png} -H Content-Type:application/octet-stream",
        "--data-binary @{png} -H Content-Type:image/png",
        "-F data=@{png}",
    ],
)
def test_the_line_of_the_readme_and_its_relatives_work(server: Runtime, png: Path, upload: str) -> None:
    token = f"$({sys.executable} -m serving.client --token --run {server.folder})"
    url = f"{server.address('inference')}/predictions/digits-encoder"
    line = f'curl -sS --max-time 20 -H "Authorization: Bearer {token}" {upload.format(png=png)} {url}'
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, check=True, timeout=60)
    np.testing.assert_allclose(json.loads(done.stdout)["embeddings"], [expected(picture(1)[1])], rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7])
def test_two_hundred_images_at_once_each_get_their_own_vector(server: Runtime, batch: int) -> None:
    pictures = [picture(seed) for seed in range(200)]
    answers = Client.of(server).embed_many("digits-encoder", [png for png, _ in pictures], batch)
    for answer, (_, pixels) in zip(answers, pictures, strict=True):
        assert not isinstance(answer, ImageError)
        np.testing.assert_allclose(answer, expected(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7])
def test_corrupt_images_among_others_are_refused_alone(server: Runtime, batch: int) -> None:
    pictures = [picture(seed) for seed in range(60)]
    bodies: list[Any] = [png[:-30] if row % 3 == 1 else png for row, (png, _) in enumerate(pictures)]
    bodies[5] = "absent.png"
    for row, answer in enumerate(Client.of(server).embed_many("digits-encoder", bodies, batch)):
        if row % 3 == 1:
            assert isinstance(answer, ImageError)
            assert str(answer) == "The image: This image cannot be used: image file is truncated."
        elif row == 5:
            assert str(answer) == "absent.png cannot be read: it is missing."
        else:
            assert not isinstance(answer, ImageError)
            np.testing.assert_allclose(answer, expected(pictures[row][1]), rtol=1e-4, atol=1e-5)


def test_images_that_had_no_turn_are_sent_again(second: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "DECODING", -1)  # of each batch the first image alone is decoded
    pictures = [picture(seed) for seed in range(12)]
    client = Client(second.address("inference"), second.token("inference"), connections=1)
    answers = client.embed_many("digits-encoder", [png for png, _ in pictures], 5)
    for answer, (_, pixels) in zip(answers, pictures, strict=True):
        assert not isinstance(answer, ImageError)
        np.testing.assert_allclose(answer, expected(pixels), rtol=1e-4, atol=1e-5)


def test_tokens_that_change_under_way_lose_no_image(server: Runtime) -> None:
    """Sixteen threads find the old token refused at the same time, again and again."""
    images = [picture(n % 7)[0] for n in range(600)]
    found = 0
    for answer in Client.of(server).embed_many("digits-encoder", images):
        assert not isinstance(answer, ImageError)
        found += 1
        if found % 150 == 0:
            Management(server).rotate("inference")
    assert found == len(images)


def test_images_share_a_request_as_far_as_it_may_be_large() -> None:
    sizes = (9 << 20, 6 << 20, 2 << 20, 1, 1, 1, 1, 20 << 20, 1)
    groups = [[len(bytes(image)) for image in group] for group in grouped(map(bytes, sizes), 4)]  # type: ignore[arg-type]
    assert groups == [[9 << 20, 6 << 20], [2 << 20, 1, 1, 1], [1], [20 << 20], [1]]


def test_a_file_beyond_the_limit_is_an_image_error(server: Runtime, tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    big.write_bytes(bytes(21 << 20))
    with pytest.raises(ImageError, match="larger than the server accepts"):
        Client.of(server).embed("digits-encoder", big)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_there_is_no_answer(server: Runtime, token: str | None) -> None:
    with pytest.raises(ServingError, match="status 403: Token Authorization failed"):
        Client(server.address("inference"), token).embed("digits-encoder", picture(1)[0])


def test_nothing_listens_but_on_loopback(server: Runtime) -> None:
    front_end = psutil.Process(java(server))
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in (front_end, *front_end.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5  # three of HTTP and two of gRPC
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.parametrize("api", ["inference", "management"])
def test_grpc_is_closed_to_everyone(server: Runtime, api: Api) -> None:
    """Its StreamPredictions ended a worker, and no setting turns it off: even the right token is refused there."""
    port = settings(server.config.read_text())[f"grpc_{api}_port"]
    service = {"inference": "InferenceAPIsService/Ping", "management": "ManagementAPIsService/ListModels"}[api]
    done = subprocess.run(
        ["curl", "--silent", "--include", "--http2-prior-knowledge", "--max-time", "10", "--data-binary", "@-",
         "-H", "content-type: application/grpc", "-H", f"authorization: Bearer {server.token(api)}",
         f"http://127.0.0.1:{port}/org.pytorch.serve.grpc.{api}.{service}"],
        input=bytes(5), capture_output=True, check=False,
    )  # fmt: skip
    assert b"grpc-status: 7" in done.stdout, done  # PERMISSION_DENIED


def test_what_is_refused_leaves_the_logs_as_they_are(server: Runtime) -> None:
    token, logs = server.token("inference"), (server.log, server.output)
    before = [log.stat().st_size for log in logs]
    inference, management = (server.address(api) for api in ("inference", "management"))
    urls = [f"{inference}/predictions/{name}" for name in ("digits-encoder", "nobody", "%0aline")]
    urls += [f"{management}/{path}" for path in ("token", "token?type=inference", "models", "nothing")]
    for header in ("nonsense", "Bearer wrong", f"Bearer {token}"):
        for url in urls:
            requests.get(url, headers={"Authorization": header}, timeout=20)
            requests.post(url, data=b"words", headers={"Authorization": header}, timeout=20)
    assert [log.stat().st_size for log in logs] == before


def test_the_inference_token_does_not_manage(server: Runtime) -> None:
    headers = {"Authorization": f"Bearer {server.token('inference')}"}
    url = f"{server.address('management')}/models/digits-encoder"
    assert requests.delete(url, headers=headers, timeout=20).status_code == 403
    Client.of(server).embed("digits-encoder", picture(1)[0])


def command(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "serving.client", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_command_prints_a_line_an_image_and_names_bad_ones(
    server: Runtime,
    png: Path,
    tmp_path: Path,
) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("no image")
    promote(tmp_path, entry("digits-encoder", png))
    done = command("--run", server.folder, png, bad, "absent.png", png, cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(png)] * 2
    np.testing.assert_allclose(lines[0]["embedding"], expected(picture(1)[1]), rtol=1e-5)
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        str(bad),
        "absent.png cannot be read",
    ]
    assert done.returncode == 1


def test_the_command_says_in_one_sentence_what_is_wrong_with_the_server(
    server: Runtime, png: Path, tmp_path: Path
) -> None:
    unknown = command("--run", server.folder, "--model", "nobody", png)
    nothing = command("--run", tmp_path, "--model", "digits-encoder", png)
    unpromoted = command("--run", server.folder, png, cwd=tmp_path)
    assert unknown.stderr == "The server refuses nobody with status 404: Model not found: nobody.\n"
    assert nothing.stderr == f"No server runs in {tmp_path}. Start one with `make serve`.\n"
    assert unpromoted.stderr.startswith("Nothing is promoted yet")
    assert {done.returncode for done in (unknown, nothing, unpromoted)} == {2}


def test_a_silent_server_is_given_up_after_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServingError, match=r"gave no answer for x in 0\.2 s"):
            Client(address, timeout=0.2).embed("x", b"image")
    with pytest.raises(ServingError, match="No server answers"):
        Client(address).embed("x", b"image")
