"""HTTP to our own servers: no proxy between, and no ~/.netrc that would replace a token."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests


def session(address: str) -> requests.Session:
    """A session for requests to this address; on this machine it takes nothing from the environment."""
    made = requests.Session()
    made.trust_env = not here(urlsplit(address).hostname or "")
    made.auth = lambda request: request  # what is set here keeps ~/.netrc out, for other machines too
    return made


def request(method: str, url: str, **options: Any) -> requests.Response:
    """One request, as `requests.request` makes it."""
    with session(url) as once:
        return once.request(method, url, **options)


def here(host: str) -> bool:
    """Whether a host is this machine: localhost, a loopback address, or one of its own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    own = {each.address.split("%")[0] for interface in psutil.net_if_addrs().values() for each in interface}
    return address.is_loopback or address.is_unspecified or str(address) in own
