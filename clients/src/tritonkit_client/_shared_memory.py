"""Inference through system shared memory: which tensors, which servers, when registered. Does no network I/O.

A tensor is copied once into a segment instead of several times through sockets; outputs are views of one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ._calls import Call, Flow, InferRequest, Wanted, Wire
from ._errors import (
    ConnectionFailed,
    InvalidInput,
    ModelNotReady,
    Origin,
    ServerBusy,
    ServerError,
    TritonkitClientError,
)
from ._metadata import ModelMetadata
from ._segments import Segment, Segments, is_orphan
from ._servers import Server
from ._tensors import DTYPES, Array, decode

logger = logging.getLogger("tritonkit_client")

# Triton's words for a region that it lost in a restart.
_LOST = "unable to find shared memory region"
# Its words for an output that grew: it does not fit where the last one did.
_GROWN = "shared memory size specified"


@dataclass(frozen=True)
class SharedMemory:
    """Pass large tensors to servers on this machine through ``/dev/shm``.

    Servers elsewhere, and those that cannot see this machine's ``/dev/shm`` (a container without ``--ipc=host``),
    are sent them as usual.

    Attributes:
        min_bytes: Smaller tensors travel with the request.
        capacity_bytes: What all segments of a client may take; beyond it tensors travel with the request.
    """

    min_bytes: int = 256 * 1024
    capacity_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.min_bytes < 1 or self.capacity_bytes < self.min_bytes:
            raise InvalidInput(f"{self} has a number out of range", "give positive sizes, the second one larger")


@dataclass
class _Use:
    """The segments of one request, by tensor; which of them became results; whether the server is done with them."""

    inputs: dict[str, Segment]
    outputs: dict[str, Segment]
    lent: set[str] = field(default_factory=set)
    over: bool = False


class Arena:
    """The segments of one client, and which servers know them.

    Args:
        wanted: How much.
        pick: The server that would get the next request for a model.
    """

    def __init__(self, wanted: SharedMemory, pick: Callable[[str], Server]) -> None:
        self._wanted = wanted
        self._pick = pick
        self._segments = Segments(wanted.capacity_bytes)
        self._known: dict[Server, set[str]] = {}
        self._cannot: set[Server] = set()
        # How large outputs were the last time, by model, version and the shapes of inputs.
        self._sizes: dict[Any, dict[str, int]] = {}

    def infer(
        self, wire: Wire, metadata: ModelMetadata, request: InferRequest, origin: Origin
    ) -> Flow[dict[str, Array]]:
        """One inference, through shared memory where that is possible and worth it."""
        large = any(len(tensor.data) >= self._wanted.min_bytes for tensor in request.inputs)
        key = (request.model, request.version, tuple(tensor.shape for tensor in request.inputs))
        sizes = {name: size for name, size in self._sizes.get(key, {}).items() if size >= self._wanted.min_bytes}
        if large or sizes:
            server = self._pick(request.model)
            if server not in self._cannot and _is_here(server):
                try:
                    outputs = yield from self._through(wire, metadata, request, origin, server, sizes)
                except (ConnectionFailed, ServerBusy, ModelNotReady):
                    pass  # not this server now: any other may have it, without shared memory
                else:
                    if outputs is not None:
                        return self._noted(key, outputs)
        answer: dict[str, Array] = yield wire.infer(request, origin)
        return self._noted(key, answer)

    def closing(self, wire: Wire, servers: Sequence[Server]) -> Iterator[Flow[None]]:
        """What is left to do: forget every region on every server, and remove the files."""

        def forget(server: Server, names: set[str]) -> Flow[None]:
            # What a late request may still use stays registered; the next client after this process forgets it.
            for name in names - self._segments.in_quarantine():
                yield from _quietly(replace(wire.unregister(name, Origin(server.name)), server=server))

        for server, names in self._known.items():
            if server in servers and names:
                yield forget(server, names)
        self._segments.close()

    def _noted(self, key: Any, outputs: dict[str, Array]) -> dict[str, Array]:
        if len(self._sizes) > 1000:  # shapes that never come back
            self._sizes.clear()
        self._sizes[key] = {name: array.nbytes for name, array in outputs.items() if array.dtype != object}
        return outputs

    def _through(
        self,
        wire: Wire,
        metadata: ModelMetadata,
        request: InferRequest,
        origin: Origin,
        server: Server,
        sizes: dict[str, int],
    ) -> Generator[Call[Any], Any, dict[str, Array] | None]:
        """The inference through segments; None where it must travel with the request."""
        names = [wanted.name for wanted in request.outputs] or [spec.name for spec in metadata.outputs]
        wanted = {tensor.name: len(tensor.data) for tensor in request.inputs}
        use = _Use(
            self._take({name: size for name, size in wanted.items() if size >= self._wanted.min_bytes}),
            self._take({name: sizes[name] for name in names if name in sizes}),
        )
        try:
            answer = yield from self._ask(wire, self._placed(request, names, use), origin, server, use)
            use.over = True
            return answer
        except (InvalidInput, ServerError) as error:
            use.over = True  # the server said so: it is done with the request
            if _GROWN in error.message.lower():
                return None
            raise
        finally:
            # An output that was read is an array now, and its segment comes back with that.
            rest = [*use.inputs.values(), *(one for name, one in use.outputs.items() if name not in use.lent)]
            if use.over:
                for segment in rest:
                    self._segments.give(segment)
            else:
                self._segments.quarantine(rest)

    def _ask(
        self, wire: Wire, placed: InferRequest, origin: Origin, server: Server, use: _Use
    ) -> Generator[Call[Any], Any, dict[str, Array] | None]:
        segments = [*use.inputs.values(), *use.outputs.values()]
        if not (yield from self._register(wire, segments, server)):
            return None
        call = replace(wire.infer(placed, origin), server=server)
        try:
            answer: dict[str, Array] = yield call
            return answer
        except (InvalidInput, ServerError) as error:
            if _LOST not in error.message.lower():
                raise
        self._known.pop(server, None)
        if not (yield from self._register(wire, segments, server)):
            return None
        answer = yield call
        return answer

    def _take(self, sizes: dict[str, int]) -> dict[str, Segment]:
        """A segment for each of these tensors that there is memory for."""
        found = {name: self._segments.take(size) for name, size in sizes.items()}
        return {name: segment for name, segment in found.items() if segment is not None}

    def _placed(self, request: InferRequest, names: Sequence[str], use: _Use) -> InferRequest:
        """The request with places instead of bytes."""

        def read(name: str, datatype: str, shape: tuple[int, ...]) -> Array:
            size = math.prod(shape) * DTYPES[datatype].itemsize
            use.lent.add(name)
            return decode(self._segments.lend(use.outputs[name])[:size], datatype, shape)

        inputs = []
        for tensor in request.inputs:
            segment = use.inputs.get(tensor.name)
            if segment is not None:
                segment.write(tensor.data)
                tensor = replace(tensor, data=b"", parameters=_place(segment, len(tensor.data)))
            inputs.append(tensor)
        outputs = tuple(
            Wanted(name, _place(use.outputs[name], use.outputs[name].size)) if name in use.outputs else Wanted(name)
            for name in names
        )
        return replace(request, inputs=tuple(inputs), outputs=outputs, placed=read)

    def _register(self, wire: Wire, segments: Sequence[Segment], server: Server) -> Generator[Call[Any], Any, bool]:
        """Make segments known to a server; False where it cannot see them."""
        if server not in self._known:
            yield from self._forget_orphans(wire, server)
        known = self._known.setdefault(server, set())
        origin = Origin(server.name)
        for segment in segments:
            if segment.name in known:
                continue
            try:
                yield replace(wire.register(segment.name, f"/{segment.name}", segment.size, origin), server=server)
            except (InvalidInput, ServerError) as error:
                logger.warning("%s cannot use this machine's /dev/shm: %s", server.name, error.message)
                self._cannot.add(server)
                return False
            known.add(segment.name)
        return True

    def _forget_orphans(self, wire: Wire, server: Server) -> Generator[Call[Any], Any, None]:
        """Unregister what clients that died have left on a server of this machine."""
        origin = Origin(server.name)
        try:
            found: tuple[str, ...] = yield replace(wire.regions(origin), server=server)
        except (InvalidInput, ServerError):
            return  # it cannot list them: then it has none of ours
        for name in found:
            if is_orphan(name):
                yield from _quietly(replace(wire.unregister(name, origin), server=server))


def _quietly(call: Call[None]) -> Generator[Call[Any], Any, None]:
    with contextlib.suppress(TritonkitClientError):
        yield call


def _place(segment: Segment, size: int) -> dict[str, str | int]:
    return {"shared_memory_region": segment.name, "shared_memory_byte_size": size}


def _is_here(server: Server) -> bool:
    """Whether a server is on this machine, as far as its address tells."""
    host = server.endpoint.host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
