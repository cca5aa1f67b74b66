"""TCP ports of this machine that are free now and stay so until a server binds them."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000
TRIES = 1_000
# The kernel gives these to outgoing connections: one of them that is free now may be a caller's a moment later, and a
# server takes a moment to bind. Documentation/networking/ip-sysctl.rst; the default is 32768 to 60999.
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL = (32_768, 60_999)


def free_ports(count: int) -> list[int]:
    """Different ports at which nobody listens and which no outgoing connection will be given.

    Args:
        count: How many.

    Raises:
        OSError: Fewer than ``count`` are free.
    """
    first, last = _ephemeral()
    candidates = [port for port in range(LOWEST, 65_536) if not first <= port <= last] or range(LOWEST, 65_536)
    held: list[socket.socket] = []
    try:
        for port in random.sample(candidates, min(TRIES, len(candidates))):
            if len(held) == count:
                break
            if listening := _listen(port):
                held.append(listening)
        if len(held) < count:
            raise OSError(f"{len(held)} of {count} ports are free among {TRIES} tried")
        return [int(listening.getsockname()[1]) for listening in held]
    finally:
        for listening in held:
            listening.close()


def _listen(port: int) -> socket.socket | None:
    """A listener on all of this machine's addresses, as a server might want it; nothing if somebody has the port."""
    try:
        return socket.create_server(("", port))
    except OSError:
        return None


def _ephemeral() -> tuple[int, int]:
    try:
        first, last = EPHEMERAL.read_text(encoding="ascii").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return DEFAULT_EPHEMERAL
