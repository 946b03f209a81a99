"""A port that is chosen for a server is still free when the server opens it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.host.free_ports import RANGE, free_ports

RESERVED = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_none_is_chosen_twice() -> None:
    chosen = [port for _ in range(3) for port in free_ports(6)]
    assert len({*chosen}) == 18
    assert {*chosen} <= {*RANGE}


def test_none_is_chosen_where_something_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("serving.host.free_ports.candidates", iter([taken.getsockname()[1], *RANGE]))
        assert taken.getsockname()[1] not in free_ports(6)


def test_by_default_linux_gives_none_to_an_outgoing_connection() -> None:
    lowest = int(RESERVED.read_text().split()[0]) if RESERVED.is_file() else 0
    if lowest < 32_768:
        pytest.skip(f"outgoing connections begin at {lowest} here, not at Linux's default of 32768")
    assert lowest >= RANGE.stop


def test_processes_that_start_together_choose_different_ones() -> None:
    program = "from serving.host.free_ports import free_ports; print(*free_ports(6))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    chosen = [port for process in processes for port in process.communicate()[0].split()]
    assert len({*chosen}) == 24
