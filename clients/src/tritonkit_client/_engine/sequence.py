"""A sequence of requests that belong together: one id, one server, a first and a last one. No I/O."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from .._protocol.errors import InvalidInput
from .operations import Inference
from .servers import Server


class SequenceState:
    """The state of a sequence: its id, its server and its last request.

    Args:
        server: The server that keeps the model's state.
        model, version: The model.
    """

    def __init__(self, server: Server, model: str, version: str) -> None:
        self.id = secrets.randbits(62) + 1  # 0 means "no sequence"; Triton reads 64 bits, protobuf's are signed
        self._server = server
        self._model = model
        self._version = version
        self._last: Inference | None = None
        self.ended = False

    def __reduce__(self) -> tuple[Any, ...]:
        raise InvalidInput(
            f"a sequence on model {self._model} cannot be pickled: it belongs to one connection",
            "begin one where it is used: client.sequence(model)",
        )

    def next(self, inference: Inference, end: bool) -> Inference:
        """The inference with its place in the sequence.

        Raises:
            InvalidInput: The sequence has ended.
        """
        if self.ended:
            raise InvalidInput(f"the sequence on model {self._model} has ended", "begin a new one")
        placed = {"sequence_id": self.id, "sequence_start": self._last is None, "sequence_end": end}
        return replace(inference, parameters={**inference.parameters, **placed}, server=self._server, idempotent=False)

    def done(self, inference: Inference, end: bool) -> None:
        """Note that the server took a request; a refused request leaves the sequence as it was."""
        self._last = inference
        self.ended = end

    def closing(self) -> Inference | None:
        """The request that ends a sequence: its last inputs again; None where nothing is left to end.

        Triton has no other way to end a sequence: the flag travels with an inference.
        """
        if self._last is None or self.ended:
            return None
        return self.next(replace(self._last, request_id=None), end=True)
