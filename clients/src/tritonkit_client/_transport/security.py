"""Certificates, tokens and headers that prove who is calling. Nothing here shows a secret in its repr."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .._protocol.calls import NO_HEADERS
from .._protocol.errors import InvalidInput

Token = str | Callable[[], str | Awaitable[str]]
Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]


@dataclass(frozen=True)
class TLS:
    """How an encrypted connection is checked; used with ``grpcs://`` and ``https://``.

    Attributes:
        ca: A PEM file with the authorities to trust; the system's where it is not given.
        certificate: A PEM file with the client's own certificate chain, for servers that ask for one (mTLS).
        key: A PEM file with its private key.
        server_name: What the server's certificate is made out to, where that is not the host in the endpoint.

    Raises:
        InvalidInput: A file does not exist, or only one of certificate and key is given.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInput("a certificate needs its key, and a key its certificate", "give both, or neither")
        for path in (self.ca, self.certificate, self.key):
            if path is not None and not Path(path).is_file():
                raise InvalidInput(f"{os.fspath(path)!r} is not a file", "give the path of a PEM file")


class Credentials:
    """The headers of every request: made anew for each, so that a token may expire.

    Args:
        token: A bearer token, or a function that makes it.
        headers: Headers, or a function that makes them.
    """

    def __init__(self, token: Token | None = None, headers: Headers | None = None) -> None:
        self._token = token
        self._headers = headers
        self.empty = token is None and headers is None
        self.refreshes = callable(token) or callable(headers)

    def __repr__(self) -> str:
        return "Credentials(none)" if self.empty else "Credentials(hidden)"

    def now(self) -> dict[str, str]:
        """The headers for one request.

        Raises:
            InvalidInput: A callback is asynchronous, or does not return a string or headers.
        """
        token = self._token() if callable(self._token) else self._token
        headers = self._headers() if callable(self._headers) else self._headers
        if inspect.isawaitable(token) or inspect.isawaitable(headers):
            for unused in (token, headers):
                if inspect.iscoroutine(unused):
                    unused.close()
            raise InvalidInput("a callback for credentials is asynchronous", "use AsyncClient, or a plain function")
        return _merged(token, headers)

    async def now_async(self) -> dict[str, str]:
        """The same, for callbacks that may be asynchronous."""
        token = self._token() if callable(self._token) else self._token
        headers = self._headers() if callable(self._headers) else self._headers
        return _merged(
            await token if inspect.isawaitable(token) else token,
            await headers if inspect.isawaitable(headers) else headers,
        )


def _merged(token: object, headers: object) -> dict[str, str]:
    merged: dict[str, str] = {}
    if headers is not None:
        if not isinstance(headers, Mapping):
            raise InvalidInput(f"headers are a {type(headers).__name__}", "give a mapping from name to value")
        for name, value in headers.items():
            merged[_checked_name(name)] = _checked(value, f"the value of header {name}")
    if token is not None:
        merged["authorization"] = f"Bearer {_checked(token, 'the token')}"
    return merged


def checked_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    """The headers of one call, if it has any; names in lower case, as their case means nothing.

    Raises:
        InvalidInput: They are not a mapping, or a name or value is not allowed.
    """
    return _merged(None, headers) if headers else NO_HEADERS


# RFC 9110, "token"; and the headers that the client itself sets: with a second value, the server would wait for bytes
# that never come.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("content-length", "content-type", "content-encoding", "transfer-encoding", "inference-header-content-length")


def _checked_name(name: object) -> str:
    if not _NAME.fullmatch(_checked(name, "a header's name")):
        raise InvalidInput("a header's name has characters that none may have", "use letters, digits and -")
    lower = str(name).lower()
    if lower in _OURS or lower.endswith("-bin"):
        raise InvalidInput(f"header {lower} is not the caller's to set", "leave it out: pass on what you need by name")
    return lower


def _checked(value: object, what: str) -> str:
    # The value itself is never part of the message.
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is a {type(value).__name__}", "give a string")
    if not value.isprintable() or not value.isascii():
        raise InvalidInput(f"{what} has characters that no header may have", "use printable ASCII")
    return value
