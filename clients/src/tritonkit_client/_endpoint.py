"""Parses the address given to a client; opens nothing and resolves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ._errors import InvalidEndpoint

# Triton's own defaults (`tritonserver --help`: --grpc-port, --http-port).
_DEFAULT_PORTS = {"grpc": 8001, "http": 8000}
_EXAMPLES = "grpc://127.0.0.1:8001 or http://127.0.0.1:8000"


@dataclass(frozen=True)
class Endpoint:
    """Where a server is.

    Attributes:
        protocol: ``grpc`` or ``http``.
        host: A name or an address; IPv6 without brackets.
        port: 1 to 65535.
        path: What comes before ``/v2`` over HTTP, without a trailing slash; empty over gRPC.
    """

    protocol: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.protocol}://{self.authority}{self.path}"


def parse_endpoint(text: str) -> Endpoint:
    """Read ``grpc://host[:port]`` or ``http://host[:port][/path]``.

    Raises:
        InvalidEndpoint: It is not one of these. The message never repeats a user name, a password or a query.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        # urllib's own message may quote the whole address, secrets included.
        raise InvalidEndpoint("the endpoint is not an address", f"write it like {_EXAMPLES}") from error
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidEndpoint(
            "the endpoint carries a user name, a password, a query or a fragment",
            f"give only scheme, host, port and path, like {_EXAMPLES}",
        )
    _check_scheme(text, parts)
    if not parts.hostname or port == 0:
        raise InvalidEndpoint(f"the endpoint {text!r} has no usable host or port", f"write it like {_EXAMPLES}")
    path = parts.path.rstrip("/")
    if path and parts.scheme == "grpc":
        raise InvalidEndpoint(f"the endpoint {text!r} has a path, which gRPC does not know", "drop the path")
    return Endpoint(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], path)


def _check_scheme(text: str, parts: SplitResult) -> None:
    if parts.scheme in ("https", "grpcs"):
        raise InvalidEndpoint(
            f"the endpoint {text!r} asks for TLS, which this client does not speak",
            "use http:// or grpc:// inside a trusted network, or put a TLS proxy beside the client",
        )
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidEndpoint(
            f"the endpoint {text!r} does not begin with grpc:// or http://", f"write it like {_EXAMPLES}"
        )
