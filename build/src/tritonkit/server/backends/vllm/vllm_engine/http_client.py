"""HTTP to a server of this machine, over asyncio's streams: one connection a request, closed by whoever stops waiting.

vLLM ends a request whose connection is closed, so cancelling the task that waits here cancels it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

HOST = "127.0.0.1"
LINE_BYTES = 16 * 2**20  # the longest event: log-probabilities of a whole vocabulary


class EngineError(Exception):
    """The server's refusal, in its own words.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ConnectionLost(Exception):
    """The server does not answer any more, or does not yet."""


async def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """One request and its whole answer: status and bytes.

    Raises:
        ConnectionLost: See the class.
    """
    async with _exchange(port, method, path, body) as (status, pieces):
        return status, b"".join([piece async for piece in pieces])


async def post(port: int, path: str, body: Any) -> Any:
    """One JSON request and its JSON answer.

    Raises:
        EngineError: The server refuses it.
        ConnectionLost: See the class.
    """
    status, content = await call(port, "POST", path, body)
    if status != 200:
        raise EngineError(status, _message(content))
    return json.loads(content)


async def events(port: int, path: str, body: Any) -> AsyncIterator[Any]:
    """Send a request whose answer is a stream of server-sent events, and give each event's JSON as it comes.

    Raises:
        EngineError: The server refuses it, at once or in the middle.
        ConnectionLost: See the class.
    """
    async with _exchange(port, "POST", path, body) as (status, pieces):
        if status != 200:
            raise EngineError(status, _message(b"".join([piece async for piece in pieces])))
        rest = b""
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: "):
                    continue
                if line.startswith(b"data: [DONE]"):
                    return
                event = json.loads(line[6:])
                if "error" in event:
                    raise EngineError(int(event["error"].get("code") or 500), _message(line[6:]))
                yield event
        raise ConnectionLost("the stream ended before its end")


@contextlib.asynccontextmanager
async def _exchange(port: int, method: str, path: str, body: Any) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """Send one request; gives the status and the pieces of the answer's body."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, limit=LINE_BYTES)
    except OSError as error:
        raise ConnectionLost(str(error)) from error
    try:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        writer.write(head.encode() + b"\r\n" + content)
        await writer.drain()
        status, headers = await _head(reader)
        yield status, _pieces(reader, headers)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionLost(str(error) or type(error).__name__) from error
    finally:
        writer.transport.abort()  # at once, whatever is still on its way


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(lines[0].split(" ", 2)[1]), headers


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """A body as it comes: in chunks, of a known length, or until the end."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        return
    length = headers.get("content-length")
    yield await (reader.read() if length is None else reader.readexactly(int(length)))


def _message(content: bytes) -> str:
    """The sentence in an answer that is an error."""
    try:
        value = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace").strip()[:1000]
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])
    return json.dumps(error)
