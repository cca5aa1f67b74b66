"""Parses the address given to a client; opens nothing and resolves nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import SplitResult, urlsplit

from .._protocol.errors import InvalidEndpoint

# Triton's own defaults (`tritonserver --help`: --grpc-port, --http-port).
_DEFAULT_PORTS = {"grpc": 8001, "http": 8000}
_SCHEMES = {"grpc": ("grpc", False), "grpcs": ("grpc", True), "http": ("http", False), "https": ("http", True)}
_EXAMPLES = "grpc://127.0.0.1:8001, http://127.0.0.1:8000, grpc://a:8001,b:8001 or dns:///name:8001"


@dataclass(frozen=True)
class Endpoint:
    """Where a server is.

    Attributes:
        protocol: ``grpc`` or ``http``.
        host: A name or an address; IPv6 without brackets.
        port: 1 to 65535.
        path: What comes before ``/v2`` over HTTP, without a trailing slash; empty over gRPC.
        tls: Whether the connection is encrypted.
        name: What the server is called where ``host`` is only one of its addresses; empty otherwise.
    """

    protocol: str
    host: str
    port: int
    path: str = ""
    tls: bool = False
    name: str = ""

    @property
    def authority(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        """``grpc``, ``grpcs``, ``http`` or ``https``."""
        return f"{self.protocol}s" if self.tls else self.protocol

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Endpoints:
    """The servers of a client.

    Attributes:
        all: The servers; where ``resolve`` is set, a single name.
        resolve: Whether the name stands for all of its addresses, each of them a server.
    """

    all: tuple[Endpoint, ...]
    resolve: bool = False

    def __str__(self) -> str:
        first = self.all[0]
        hosts = ",".join(endpoint.authority for endpoint in self.all)
        return f"{'dns+' if self.resolve else ''}{first.scheme}://{hosts}{first.path}"

    @property
    def protocol(self) -> str:
        """``grpc`` or ``http``: all servers of a client speak the same."""
        return self.all[0].protocol

    @property
    def many(self) -> bool:
        """Whether there can be more than one server."""
        return self.resolve or len(self.all) > 1


def parse_endpoint(text: str) -> Endpoints:
    """Read one server, several, or a name with several addresses.

    ``grpc://host[:port]``, ``grpcs://``, ``http://host[:port][/path]``, ``https://``; several hosts with commas
    between them; ``dns:///name[:port]`` (gRPC) or any of the four behind ``dns+`` for all addresses of a name.

    Raises:
        InvalidEndpoint: The text has none of these forms. The message repeats no user name, password or query.
    """
    if not isinstance(text, str):
        raise InvalidEndpoint(f"the endpoint is a {type(text).__name__}", f"give a string like {_EXAMPLES}")
    resolve, plain = _without_dns(text.strip())
    try:
        parts = urlsplit(plain)
        hosts = [host.strip() for host in parts.netloc.split(",")]
        singles = [urlsplit(f"{parts.scheme}://{host}{parts.path}") for host in hosts]
        ports = [single.port for single in singles]
    except ValueError as error:
        # urllib's own message may quote the whole address, secrets included.
        raise InvalidEndpoint("the endpoint is not an address", f"write it like {_EXAMPLES}") from error
    if "@" in plain or parts.query or parts.fragment:
        raise InvalidEndpoint(
            "the endpoint carries a user name, a password, a query or a fragment",
            f"give only scheme, hosts, ports and path, like {_EXAMPLES}; credentials go into token= or headers=",
        )
    if parts.scheme not in _SCHEMES:
        raise InvalidEndpoint(
            f"the endpoint {text!r} does not begin with grpc://, grpcs://, http://, https:// or dns:",
            f"write it like {_EXAMPLES}",
        )
    endpoints = tuple(_single(text, single, port) for single, port in zip(singles, ports, strict=True))
    if len(set(endpoints)) < len(endpoints):
        raise InvalidEndpoint(f"the endpoint {text!r} names a server twice", "name each server once")
    if resolve and len(endpoints) > 1:
        raise InvalidEndpoint(f"the endpoint {text!r} has several names", "give dns: one name, or list the servers")
    return Endpoints(endpoints, resolve)


def _without_dns(text: str) -> tuple[bool, str]:
    if text.startswith("dns:///"):
        return True, f"grpc://{text.removeprefix('dns:///')}"
    return (True, text.removeprefix("dns+")) if text.startswith("dns+") else (False, text)


def _single(text: str, parts: SplitResult, port: int | None) -> Endpoint:
    if not parts.hostname or port == 0:
        raise InvalidEndpoint(f"the endpoint {text!r} has no usable host or port", f"write it like {_EXAMPLES}")
    protocol, tls = _SCHEMES[parts.scheme]
    path = parts.path.rstrip("/")
    if path and protocol == "grpc":
        raise InvalidEndpoint(f"the endpoint {text!r} has a path, which gRPC does not know", "drop the path")
    # A gateway with TLS listens where HTTPS does; Triton itself on its own port.
    default = 443 if parts.scheme == "https" else _DEFAULT_PORTS[protocol]
    return Endpoint(protocol, parts.hostname, port or default, path, tls)


def addressed(named: Endpoint, address: str) -> Endpoint:
    """The endpoint of one address of a name."""
    return replace(named, host=address, name=named.host)
