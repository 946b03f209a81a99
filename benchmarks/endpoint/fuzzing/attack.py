"""`python -m benchmarks.endpoint.fuzzing.attack ADDRESS NAME --examples N`: send N broken requests.

The environment variable TOKEN has the token. It prints, as JSON, how often each kind got which status. A request with a
wrong answer is made as small as hypothesis can, and kept in the corpus.
"""

import hashlib
import json
import math
import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from schemathesis import Case, GenerationMode

from benchmarks.endpoint.fuzzing.bodies import FORMS, JSON, TENSORS
from benchmarks.endpoint.fuzzing.envelopes import FRAMING, HEADERS
from benchmarks.endpoint.fuzzing.exchange import API, Endpoint, request
from benchmarks.endpoint.fuzzing.files import IMAGES
from serving.host.command import Parser

CORPUS = Path("tests/serving/corpus")
ADDED = ("authorization", "content-length")


@dataclass
class Found:
    """For one kind: how many requests got which status; the smallest request with a wrong answer, and that answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: str = ""
    kept: str = ""


def described() -> st.SearchStrategy[bytes]:
    """Requests that schemathesis makes from openapi.yaml: valid and invalid ones, to the model and to any name."""
    schemathesis.serializer("application/x-uint8", "application/x-npy")(lambda context, value: value)
    operation = schemathesis.openapi.from_dict(API)["/predictions/{name}"]["POST"]
    return st.one_of(
        operation.as_strategy(generation_mode=mode, path_parameters=path).map(raw)
        for mode in GenerationMode
        for path in (*[{"name": "{name}"}] * 3, None)
    )


def raw(case: Case) -> bytes:
    """The request that schemathesis would send, without the token that it makes up."""
    ready = requests.Request(**case.as_transport_kwargs(base_url="http://host")).prepare()
    headers = [f"{name}: {value}" for name, value in ready.headers.items() if name.lower() not in ADDED]
    body = ready.body or b""
    return request(
        [header.encode() for header in headers],
        body.encode() if isinstance(body, str) else body,
        f"POST {ready.path_url.replace('%7Bname%7D', '{name}')} HTTP/1.1".encode(),
    )


def attack(endpoint: Endpoint, strategy: st.SearchStrategy[bytes], examples: int, start: int) -> Found:
    """Send requests of one kind. It ends early at a wrong answer, with a request that cannot be made smaller."""
    found, last = Found(), b""

    def ask(whole: bytes) -> None:
        nonlocal last
        last = whole
        found.statuses[endpoint.ask(whole)] += 1

    chosen = settings(max_examples=examples, database=None, deadline=None, report_multiple_bugs=False,
                      suppress_health_check=list(HealthCheck))  # fmt: skip
    try:
        seed(start)(chosen(given(strategy)(ask)))()
    except (AssertionError, OSError, Flaky) as error:  # OSError: no answer, or nobody there any more
        path = CORPUS / f"found-{hashlib.sha256(last).hexdigest()[:8]}.http"
        path.write_bytes(last)
        found.wrong, found.kept = str(error), str(path)
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    parser = Parser(prog="python -m benchmarks.endpoint.fuzzing.attack", description=__doc__)
    parser.add_argument("address", help="of the server")
    parser.add_argument("name", help="of the model")
    parser.add_argument("--examples", type=int, required=True, help="requests of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    endpoint = Endpoint(given.address, os.environ["TOKEN"], given.name)
    kinds = {"images": IMAGES.map(lambda data: request([], data)), "headers": HEADERS, "JSON": JSON, "tensors": TENSORS,
             "forms": FORMS, "framing": FRAMING, "openapi.yaml": described()}  # fmt: skip
    each = math.ceil(given.examples / len(kinds))
    print(json.dumps({kind: vars(attack(endpoint, of, each, given.seed)) for kind, of in kinds.items()}))


if __name__ == "__main__":
    main()
