"""Send a request byte by byte, and check whether its answer is allowed.

A request is its first line, where `{name}` stands for the served model, its headers, an empty line and its body. Host,
Authorization and Content-Length are added when it is sent, unless it has its own.
"""

import json
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

API: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "serving/openapi.yaml").read_text())
# Documented too, but nothing that a request alone may bring about, however odd it is.
TROUBLE = {408, 500, 503, 504}
ALLOWED = set(map(int, API["paths"]["/predictions/{name}"]["post"]["responses"])) - TROUBLE
LINE = b"POST /predictions/{name} HTTP/1.1"
SECONDS = 20.0  # for an answer
PATIENCE = 0.2  # s, until a server is taken to wait for the rest of a body whose length is a lie


def request(headers: Iterable[bytes], body: bytes, line: bytes = LINE) -> bytes:
    """A request, from its parts."""
    return b"\r\n".join([line, *headers]) + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Answer:
    """An answer; its status is 0 when the server closed the connection instead."""

    status: int
    body: bytes = b""


@dataclass(frozen=True)
class Endpoint:
    """The address of a served model."""

    address: str
    token: str
    name: str

    def ask(self, request: bytes) -> int:
        """The status; 0 for no answer to a request that may lie about its length. Raises AssertionError at another."""
        whole, framed = self.whole(request)
        answer = self.send(whole, framed)
        if answer.status not in ALLOWED and not (framed and answer.status == 0):
            raise AssertionError(f"{answer.status} {answer.body[:300]!r}")
        if answer.status != 200 and answer.body.startswith(b"{"):
            body = json.loads(answer.body)
            if not body.get("error", body.get("message")):
                raise AssertionError(f"{answer.status} without a reason: {answer.body[:300]!r}")
        return answer.status

    def whole(self, request: bytes) -> tuple[bytes, bool]:
        """As it goes over the wire; and whether the request itself says where its body ends, so that it may lie."""
        head, _, body = request.partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        names = {header.split(b":")[0].strip().lower() for header in headers}
        own = {b"host": urlsplit(self.address).netloc, b"authorization": f"Bearer {self.token}"}
        if not (framed := bool(names & {b"content-length", b"transfer-encoding"})):
            own[b"content-length"] = str(len(body))
        added = [key + b": " + value.encode() for key, value in own.items() if key not in names]
        head = b"\r\n".join([line.replace(b"{name}", self.name.encode()), *added, *headers])
        return head + b"\r\n\r\n" + body, framed

    def send(self, whole: bytes, framed: bool) -> Answer:
        """Send over a new connection. Raises TimeoutError when the server neither answers nor closes it."""
        place = urlsplit(self.address)
        with socket.create_connection((place.hostname, place.port), SECONDS) as connection:
            try:
                connection.sendall(whole)
                if framed and not select.select([connection], [], [], PATIENCE)[0]:
                    connection.shutdown(socket.SHUT_WR)
                response = HTTPResponse(connection, method=whole.split(b" ", 1)[0].decode("latin-1"))
                response.begin()
                return Answer(response.status, response.read())
            except (ConnectionError, HTTPException):
                return Answer(0)
