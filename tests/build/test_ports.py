"""Free ports: several, different, and none that the kernel may give to an outgoing connection meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tritonkit.server import ports
from tritonkit.server.ports import free_ports


def test_they_differ_and_are_no_outgoing_connections_ports() -> None:
    first, last = map(int, ports.EPHEMERAL.read_text().split())
    chosen = free_ports(50)
    assert len(set(chosen)) == 50
    assert not [port for port in chosen if first <= port <= last]


def test_a_port_with_a_listener_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(ports, "LOWEST", 65_533)
        monkeypatch.setattr("random.sample", lambda *_: [taken.getsockname()[1], 65_534])
        assert free_ports(1) == [65_534]


def test_where_all_ports_are_for_outgoing_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ports, "EPHEMERAL", tmp_path / "range")
    (tmp_path / "range").write_text("1024\t65535\n")
    assert len(set(free_ports(3))) == 3


def test_too_many() -> None:
    with pytest.raises(OSError, match="are free among"):
        free_ports(ports.TRIES + 1)
