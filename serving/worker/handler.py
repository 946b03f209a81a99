"""Run `encoder.py` in TorchServe: a batch of requests in, one answer per request out. Packed beside it."""

import logging
import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

from serving.worker.encoder import Answer, Encoder, Request
from serving.worker.metrics import Meter


class Handler:
    """TorchServe calls `initialize` once per worker, then `handle` for every batch."""

    def initialize(self, context: Any) -> None:
        """Load the archive's encoder.

        Raises RuntimeError, the only error that TorchServe reports immediately instead of trying again.
        """
        try:
            import PIL.Image  # noqa: F401, PLC0415 - the decoder takes it late; without it this worker must not start

            workers = context.model_yaml_config["maxWorkers"]
            folder = Path(context.system_properties["model_dir"])
            self.encoder = Encoder(folder, threads=max(1, len(os.sched_getaffinity(0)) // workers))
            self.encoder.meter = Meter(context.model_name, self.encoder.version, folder / "drift.npz")
        except Exception as error:
            raise RuntimeError(f"The archive of {context.model_name} cannot be loaded: {error!r}") from error
        keep_equal_names()
        # From here on TorchServe writes one line per batch at INFO.
        logging.getLogger().setLevel(logging.WARNING)

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer every request."""
        asked = [read(request, context, row) for row, request in enumerate(requests)]
        answers = self.encoder.answer(context.model_name, asked)
        for row, answer in enumerate(answers):
            tell(answer, context, row)
        return [answer.body for answer in answers]


def keep_equal_names() -> None:
    """Keep all parts of a form. TorchServe puts them into a dict by name and loses all but the last of equal names.

    So each part gets its position as its name first. The names are not used otherwise.
    """
    from ts.protocol import otf_message_handler  # noqa: PLC0415 - there is none but in a worker

    received = otf_message_handler._retrieve_request

    def numbered(connection: Any) -> Any:
        request = received(connection)
        for place, part in enumerate(request["parameters"] if request else ()):
            part["name"] = str(place)
        return request

    otf_message_handler._retrieve_request = numbered


def read(request: dict[str, Any], context: Any, row: int) -> Request:
    """The request, from TorchServe's dict of a form's parts or the body. It has no query."""
    headers = {k.lower(): v for k, v in context.get_all_request_header(row).items() if isinstance(v, str)}
    # A form's field without a file name arrives as text.
    parts = [part.encode() if isinstance(part, str) else bytes(part) for part in request.values()]
    return Request(parts, *(headers.get(key, "") for key in ("content-type", "accept", "x-normalize", "x-probe")))


def tell(answer: Answer, context: Any, row: int) -> None:
    """Set the status and the headers of an answer."""
    if answer.status != HTTPStatus.OK:
        context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, row)
    context.set_response_content_type(row, answer.content_type)
    for key, value in answer.headers.items():
        context.set_response_header(row, key, value)
