"""Sends requests over a grpc.aio channel; does not know what they mean and raises no error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc

from .._protocol.calls import Request, Response, closed_response, idle_response
from .endpoint import Endpoint
from .grpc import channel_credentials, compression_of, failed_response, metadata, options
from .security import TLS


class GrpcAioTransport:
    """The gRPC side of `AsyncTransport`; belongs to the event loop of its first call."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, compression: str | None) -> None:
        self._arguments = (endpoint, tls, compression)
        self._channel: Any = None
        self._rpcs: dict[str, Any] = {}
        self._closed = False

    async def send(self, request: Request, credentials: Mapping[str, str]) -> Response:
        """See `AsyncTransport.send`; the timeout is the call's gRPC deadline."""
        if self._closed:
            return closed_response()
        rpc = self._rpcs.get(request.target)
        if rpc is None:
            rpc = self._rpcs[request.target] = self._open().unary_unary(request.target)
        try:
            body = await rpc(b"".join(request.body), timeout=request.timeout, metadata=metadata(request, credentials))
        except grpc.RpcError as error:
            return closed_response() if self._closed else failed_response(error)
        except asyncio.CancelledError:
            if not self._closed or _is_cancelled():
                raise
            return closed_response()
        return Response("OK", body=body)

    async def stream(self, request: Request, credentials: Mapping[str, str]) -> AsyncIterator[Response]:
        """See `GrpcTransport.stream`."""
        if self._closed:
            yield closed_response()
            return
        rpc = self._open().stream_stream(request.target)
        call = rpc(iter((b"".join(request.body),)), timeout=request.timeout, metadata=metadata(request, credentials))
        try:
            messages = aiter(call)
            while True:
                try:
                    message = await asyncio.wait_for(anext(messages), request.idle_s)
                except StopAsyncIteration:
                    return
                except asyncio.TimeoutError:  # noqa: UP041 -- another class before Python 3.11
                    yield closed_response() if self._closed else idle_response(request.idle_s)
                    return
                yield Response("OK", body=message)
        except grpc.RpcError as error:
            yield closed_response() if self._closed else failed_response(error)
        except asyncio.CancelledError:
            if not self._closed or _is_cancelled():
                raise
            yield closed_response()
        finally:
            call.cancel()

    async def close(self) -> None:
        """See `Transport.close`; calls in flight fail."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> Any:
        # Only here, inside a running loop: grpc.aio ties a channel to the loop that it is made in.
        if self._channel is None:
            endpoint, tls, compression = self._arguments
            how: dict[str, Any] = {"options": options(endpoint, tls), "compression": compression_of(compression)}
            self._channel = (
                grpc.aio.secure_channel(endpoint.authority, channel_credentials(tls), **how)
                if endpoint.tls
                else grpc.aio.insecure_channel(endpoint.authority, **how)
            )
        return self._channel


def _is_cancelled() -> bool:
    """Whether the task is cancelled: a channel that is closed ends its calls with the same exception."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)  # new in Python 3.11; before, there is no way to know
    return cancelling is not None and cancelling() > 0
