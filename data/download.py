"""One file over HTTP: resumed where it stopped, checked by its published MD5."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from data import DataError
from data.progress import Progress

CHUNK = 2**16
TIMEOUT_S = (10.0, 30.0)  # to connect, between bytes


def download(url: str, to: Path, md5: str, timeout: tuple[float, float] = TIMEOUT_S) -> None:
    """Fetch url into the file `to`, from where `to`.part ends; a dropped connection is taken up again.

    Raises DataError when the server cannot be reached or refuses, and, with the bytes removed, when they
    are not the published ones.
    """
    part = to.with_name(f"{to.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    while True:
        before = part.stat().st_size
        try:
            _stream(url, part, timeout)
            break
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if part.stat().st_size > before:  # it came some way: ask for the rest
                continue
            raise DataError(
                f"{url} cannot be fetched ({_cause(error)}); check the network, run again to resume, or "
                f"name a mirror in ENCODER_FOUNDRY_MIRROR"
            ) from None
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(
            f"{url} has MD5 {found}, published is {md5}; the download was removed, run again or use a mirror"
        )
    part.rename(to)


def _stream(url: str, part: Path, timeout: tuple[float, float]) -> None:
    have = part.stat().st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to fetch; the checksum judges what is there
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            Progress(total, Path(urlsplit(url).path).name, "bytes", start) as progress,
        ):
            # Raw, since some servers declare the archive's own gzip as a transfer encoding.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                progress.advance(len(chunk))


def _cause(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError):
        return "no connection"
    return str(error)
