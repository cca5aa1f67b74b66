"""Inference through shared memory: which tensors, which servers, when registered. Does no network I/O.

A tensor is copied once into a segment instead of several times through sockets. What a segment is made of, system
memory or a GPU's, is the segments' own affair.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ._calls import Call, Operation, InferRequest, Memory, Tensor, RequestedOutput, Wire
from ._cuda import CudaSegment, Gpu, on_host
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
from ._segments import FileSegment, Segment, Segments, is_orphan
from ._servers import Server
from ._tensors import DTYPES, Array, decode

logger = logging.getLogger("tritonkit_client")

# Triton's words for a region that it lost in a restart.
_LOST = "unable to find shared memory region"
# Its words for a region that it has already.
_THERE = "already in manager"
# Its words for an output that grew: it does not fit where the last one did.
_GROWN = "shared memory size specified"
# It refuses to forget a region while it still puts away the request whose answer it has just sent. Asking takes longer
# than that; so many times, where the machine is busy.
_UNREGISTERINGS = 20


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
        _check_sizes(self)


@dataclass(frozen=True)
class CudaSharedMemory:
    """Pass large tensors, and arrays on a GPU, to servers on this machine through a GPU's memory.

    Needs ``pip install 'tritonkit-client[cuda]'``. Servers elsewhere, and those that cannot open the memory (no GPU, or
    a container of its own IPC namespace), are sent tensors as usual, copied from the GPU first.

    Attributes:
        device_id: Which GPU: its number for this process, and the same for the servers.
        min_bytes: Smaller tensors of the host travel with the request; arrays on a GPU never do.
        capacity_bytes: What all segments of a client may take; beyond it tensors travel with the request.
    """

    device_id: int = 0
    min_bytes: int = 256 * 1024
    capacity_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_sizes(self)


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
        wanted: Which memory, and how much.
        pick: The server that would get the next request for a model.

    Raises:
        InvalidInput: There is no such memory here.
    """

    def __init__(self, wanted: SharedMemory | CudaSharedMemory, pick: Callable[[str], Server]) -> None:
        self._wanted = wanted
        self._pick = pick
        self.memory: Memory = "system"
        make: Callable[[str, int], Segment] = FileSegment
        if isinstance(wanted, CudaSharedMemory):
            self.memory, make = "cuda", partial(CudaSegment, Gpu(wanted.device_id))
        self._segments = Segments(wanted.capacity_bytes, make)
        self._known: dict[Server, set[str]] = {}
        self._cannot: set[Server] = set()
        # How large outputs were the last time, by model, version and the shapes of inputs.
        self._sizes: dict[Any, dict[str, int]] = {}

    def infer(
        self, wire: Wire, metadata: ModelMetadata, request: InferRequest, origin: Origin
    ) -> Operation[dict[str, Array]]:
        """One inference, through shared memory where that is possible and worth it."""
        large = any(self._belongs(tensor) for tensor in request.inputs)
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
        answer: dict[str, Array] = yield wire.infer(on_host(request), origin)
        return self._noted(key, answer)

    def closing(self, wire: Wire, servers: Sequence[Server]) -> Iterator[Operation[None]]:
        """What is left to do: forget every region on every server, and remove the segments."""

        def forget(server: Server, names: set[str]) -> Operation[None]:
            # What a late request may still use stays registered; the next client after this process forgets it.
            ours = sorted(names - self._segments.in_quarantine())
            for name in ours * _UNREGISTERINGS:
                if name in names:
                    try:
                        yield from self._unregister(wire, name, server)
                        names.discard(name)
                    except ConnectionFailed:
                        return names.clear()  # the server is gone, and what it had open with it
                    except TritonkitClientError:
                        continue

        for server, names in self._known.items():
            if server in servers and names:
                yield forget(server, names)
        self._segments.close(registered=set[str]().union(*self._known.values()))

    def _belongs(self, tensor: Tensor) -> bool:
        """Whether an input goes through shared memory, if it can."""
        return tensor.device is not None or len(tensor.data) >= self._wanted.min_bytes

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
        use = _Use(
            self._take({tensor.name: tensor.size for tensor in request.inputs if self._belongs(tensor)}),
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
        self._known[server].difference_update(segment.name for segment in segments)
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
            return decode(self._segments.lend(use.outputs[name], size), datatype, shape)

        inputs = []
        for tensor in request.inputs:
            segment = use.inputs.get(tensor.name)
            if segment is not None:
                segment.write(tensor)
                tensor = replace(tensor, data=b"", device=None, parameters=_place(segment, tensor.size))
            inputs.append(tensor)
        outputs = tuple(
            RequestedOutput(name, _place(use.outputs[name], use.outputs[name].size)) if name in use.outputs else RequestedOutput(name)
            for name in names
        )
        return on_host(replace(request, inputs=tuple(inputs), outputs=outputs, placed=read))

    def _register(self, wire: Wire, segments: Sequence[Segment], server: Server) -> Generator[Call[Any], Any, bool]:
        """Make segments known to a server; False where it cannot see them."""
        if server not in self._known:
            yield from self._forget_orphans(wire, server)
        known = self._known.setdefault(server, set())
        origin = Origin(server.name)
        for segment in segments:
            if segment.name in known:
                continue
            known.add(segment.name)  # before it answers: if it never does, it may have the region all the same
            try:
                yield replace(wire.register(segment.region, origin), server=server)
            except (InvalidInput, ServerError) as error:
                if _THERE in error.message.lower():
                    continue
                known.discard(segment.name)
                logger.warning("%s cannot use %s: %s", server.name, segment.region.place, error.message)
                self._cannot.add(server)
                return False
        return True

    def _forget_orphans(self, wire: Wire, server: Server) -> Generator[Call[Any], Any, None]:
        """Unregister what clients that died have left on a server of this machine."""
        try:
            found: tuple[str, ...] = yield replace(wire.regions(self.memory, Origin(server.name)), server=server)
        except (InvalidInput, ServerError):
            return  # it cannot list them: then it has none of ours
        for name in found:
            if is_orphan(name):
                with contextlib.suppress(TritonkitClientError):
                    yield from self._unregister(wire, name, server)

    def _unregister(self, wire: Wire, name: str, server: Server) -> Generator[Call[Any], Any, None]:
        yield replace(wire.unregister(name, self.memory, Origin(server.name)), server=server)


def _check_sizes(wanted: SharedMemory | CudaSharedMemory) -> None:
    if wanted.min_bytes < 1 or wanted.capacity_bytes < wanted.min_bytes:
        raise InvalidInput(f"{wanted} has a number out of range", "give positive sizes, the second one larger")


def _place(segment: Segment, size: int) -> dict[str, str | int]:
    return {"shared_memory_region": segment.name, "shared_memory_byte_size": size}


def _is_here(server: Server) -> bool:
    """Whether a server is on this machine, as far as its address tells."""
    host = server.endpoint.host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
