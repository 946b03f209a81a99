"""Download one file over HTTP: resume where it stopped, and check its published MD5."""

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
    """Fetch `url` into the file `to`. It resumes where the file `to`.part ends, and after a dropped connection.

    Raises DataError when the server cannot be reached or refuses. Raises it too when the bytes are not the published
    ones; they are removed first.
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
            if part.stat().st_size > before:  # some bytes came: ask for the rest
                continue
            raise DataError(
                f"The download of {url} failed ({_cause(error)}). Check the network and run the same command again: "
                "it resumes. Or name a mirror in ENCODER_FOUNDRY_MIRROR."
            ) from None
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(
            f"The file {url} has the MD5 {found}, but {md5} was published. The download was removed. "
            "Run the same command again, or name a mirror in ENCODER_FOUNDRY_MIRROR."
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
