"""openapi.yaml as machines read it: a linter, and clients in two languages that it makes, against both servers.

`make clients` installs the tools; without them these tests are skipped.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from serving.host.runtime import Runtime
from tests.serving.conftest import ROOT, expected, picture
from tests.serving.test_contract import endpoint

__all__ = ["endpoint"]  # a fixture: both servers

DESCRIBED = ROOT / "serving/openapi.yaml"
TOOLS = ROOT / ".scratch/clients"
NODE = TOOLS / "node_modules"
pytestmark = pytest.mark.skipif(
    not (TOOLS / "installed").exists() or not shutil.which("node"), reason="`make clients` was not run"
)
PNG, PIXELS = picture(1)

PYTHON = """
import io, json, sys
from encoder_endpoint_client import AuthenticatedClient
from encoder_endpoint_client.api.default import ping, predict
from encoder_endpoint_client.models import PredictFilesBody, PredictJsonBody
from encoder_endpoint_client.types import File
address, token, image = sys.argv[1:]
with AuthenticatedClient(address, token) as client:
    assert ping.sync(client=client).status == "Healthy"
    asked = PredictJsonBody(images=[image, "no base64"])
    print(json.dumps(predict.sync("digits-encoder", client=client, body=asked).to_dict()))
    assert predict.sync("nobody", client=client, body=asked).to_dict()
"""
TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { paths } from "./schema";
declare const process: { argv: string[] };
const [address, token, image] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: address, headers: { Authorization: `Bearer ${token}` } });
const named = (name: string) => ({ params: { path: { name } }, body: { images: [image, "no base64"] } });
const { data } = await client.POST("/predictions/{name}", named("digits-encoder"));
if (!data || typeof data === "string") throw new Error("no JSON came");
const vectors: (number[] | null)[] = data.embeddings;
console.log(JSON.stringify({ ...data, embeddings: vectors }));
const { error, response } = await client.POST("/predictions/{name}", named("nobody"));
if (!error || response.status !== 404) throw new Error("nobody is known");
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, env=os.environ | environment, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a client in Python, and a program that asks by it."""
    folder = tmp_path_factory.mktemp("python")
    tool = TOOLS / "bin" / "openapi-python-client"
    run(tool, "generate", "--meta", "none", "--path", DESCRIBED, "--output-path", "encoder_endpoint_client", cwd=folder)
    (folder / "ask.py").write_text(PYTHON)
    return folder


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in TypeScript, compiled."""
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copyfile(TOOLS / "package.json", folder / "package.json")
    (folder / "node_modules").symlink_to(NODE)
    (folder / "ask.ts").write_text(TYPESCRIPT)
    run(NODE / ".bin/openapi-typescript", DESCRIBED, "--output", "schema.d.ts", cwd=folder)
    options = ["--strict", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022"]
    run(NODE / ".bin/tsc", *options, "--lib", "es2022,dom,dom.iterable", "--skipLibCheck", "ask.ts", cwd=folder)
    return folder


def check(printed: str) -> None:
    """One vector, and one image that is of no use."""
    answer = json.loads(printed)
    np.testing.assert_allclose(answer["embeddings"][0], expected(PIXELS), rtol=1e-5)
    assert answer["embeddings"][1] is None
    assert [(error["index"], error["status"]) for error in answer["errors"]] == [(1, 400)]


def arguments(endpoint: Runtime) -> tuple[str, str, str]:
    return endpoint.address("inference"), endpoint.token("inference"), base64.b64encode(PNG).decode()


def test_a_client_in_python_understands_both_servers(endpoint: Runtime, python: Path) -> None:
    check(run(TOOLS / "bin/python", "ask.py", *arguments(endpoint), cwd=python, PYTHONPATH=str(python)))


def test_a_client_in_typescript_compiles_and_understands_both_servers(endpoint: Runtime, typescript: Path) -> None:
    check(run("node", "ask.js", *arguments(endpoint), cwd=typescript))


def test_the_description_is_valid(tmp_path: Path) -> None:
    rules = tmp_path / "redocly.yaml"
    rules.write_text("extends: [recommended]\nrules: {info-license: off}\n")
    telemetry = {"REDOCLY_TELEMETRY": "off"}
    run(NODE / ".bin/redocly", "lint", "--config", rules, "--max-problems", "0", DESCRIBED, cwd=tmp_path, **telemetry)
