"""A port that is chosen for a server is still free when the server opens it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.host.free_ports import RANGE, free_ports

RESERVED = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_none_is_chosen_twice_nor_where_something_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(6)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("serving.host.free_ports.candidates", iter([taken.getsockname()[1], *RANGE]))
        second = free_ports(6)
        assert taken.getsockname()[1] not in second
    assert len({*first}) == len({*second}) == 6
    assert {*first, *second} <= {*RANGE}


def test_no_outgoing_connection_takes_one() -> None:
    assert RANGE.stop <= int(RESERVED.read_text().split()[0])


def test_processes_that_start_together_choose_different_ones() -> None:
    program = "from serving.host.free_ports import free_ports; print(*free_ports(6))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    chosen = [port for process in processes for port in process.communicate()[0].split()]
    assert len({*chosen}) == 24
