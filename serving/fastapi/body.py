"""Read a request to the FastAPI server; refuse one that is larger or slower than the settings allow."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from fastapi import Request as Asked
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from serving.host.runtime import settings
from serving.worker.encoder import Request
from serving.worker.payload import mime

SETTINGS = settings((Path(__file__).resolve().parents[1] / "config.properties").read_text(encoding="utf-8"))
MAX_BYTES, TIMEOUT = int(SETTINGS["max_request_size"]), int(SETTINGS["default_response_timeout"])
MAX_PARTS = 1000  # of a form that is read at all; `payload.few` refuses more than MAX_IMAGES


async def read(asked: Asked) -> Request:
    """Read the request. Raises HTTPException when it is too large or too slow."""
    names = ("content-type", "accept", "x-normalize", "x-probe")
    content_type, *rest = (asked.headers.get(name, "") for name in names)
    form = mime(content_type) == "multipart/form-data"
    try:
        async with asyncio.timeout(TIMEOUT):
            parts = await (fields(asked) if form else whole(asked))
    except TimeoutError:
        raise HTTPException(408, f"The body did not come within {TIMEOUT} s.") from None
    except ClientDisconnect:  # the client has gone, but the log should not show a failure
        raise HTTPException(400, "The body ended too early.") from None
    return Request(parts, content_type, *rest)


async def whole(asked: Asked) -> list[bytes]:
    body = bytearray()
    async for chunk in asked.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"The body is larger than {MAX_BYTES:,} bytes.")
    return [bytes(body)]


async def fields(asked: Asked) -> list[bytes]:
    """The parts of a form, sent with a length or in chunks, with file names or without."""
    (body,) = await whole(asked)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    most = {"max_files": MAX_PARTS, "max_fields": MAX_PARTS, "max_part_size": MAX_BYTES}
    try:
        async with Asked(asked.scope, receive).form(**most) as form:
            return [as_sent(v) if isinstance(v, str) else await v.read() for _, v in form.multi_items()]
    except StarletteHTTPException as error:
        many = str(error.detail).startswith("Too many")
        raise HTTPException(
            413 if many else 400, f"The form cannot be read: {str(error.detail).rstrip('.')}."
        ) from None


def as_sent(text: str) -> bytes:
    """The bytes of a part without a file name, which Starlette decodes as UTF-8, otherwise as Latin-1."""
    try:
        latin = text.encode("latin-1")
        latin.decode()
    except UnicodeDecodeError:
        return latin  # no UTF-8: it was read as Latin-1
    except UnicodeEncodeError:
        pass
    return text.encode()
