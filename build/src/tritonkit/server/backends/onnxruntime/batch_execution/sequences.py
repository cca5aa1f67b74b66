"""Keeps the states of sequences between their requests (``sequence_batching { state { … } }``).

Triton's core hands a Python-based backend the control inputs as tensors with every request, and with the first one of a
sequence each state's initial value. What the graph makes of a state has no way back into the core, so it stays here,
under the sequence's id. The core sends all requests of a sequence to one instance, one after another.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

START, END = 1, 2  # TRITONSERVER_REQUEST_FLAG_SEQUENCE_START and _END of tritonserver.h
IDLE_S = 1.0  # the core's max_sequence_idle_microseconds where the configuration says none
SLACK_S = 60.0  # how long a request may wait in the core's queue after its sequence was last heard of
_CONTROL_TYPES = {"int32_false_true": "TYPE_INT32", "fp32_false_true": "TYPE_FP32", "bool_false_true": "TYPE_BOOL"}


@dataclass(frozen=True)
class State:
    """One state: the graph's input and output, and whether the configuration says how it begins."""

    input: str
    output: str
    has_initial: bool


class Sequences:
    """The states of all sequences of one instance.

    Attributes:
        controls: The control inputs, described as the configuration describes inputs.
        inputs: All that the batcher adds to the inputs of a request: controls and states.
        outputs: What the graph answers to the batcher alone, described alike.
    """

    def __init__(self, batching: Mapping[str, Any]) -> None:
        """Read ``sequence_batching`` of a configuration, as Triton gives it to a backend."""
        states = batching.get("state", [])
        self.states = [
            State(entry["input_name"], entry["output_name"], bool(entry.get("initial_state"))) for entry in states
        ]
        self.controls = [
            {"name": entry["name"], "data_type": _control_type(entry["control"][0]), "dims": [1]}
            for entry in batching.get("control_input", [])
            if entry["control"]
        ]
        self.inputs = self.controls + [_described(entry, "input_name") for entry in states]
        self.outputs = [_described(entry, "output_name") for entry in states]
        idle_us = int(batching.get("max_sequence_idle_microseconds", 0))
        self._forget_s = (idle_us / 1e6 or IDLE_S) + SLACK_S
        self._kept: OrderedDict[Any, tuple[float, dict[str, np.ndarray]]] = OrderedDict()

    def __len__(self) -> int:
        """How many sequences have a state."""
        return len(self._kept)

    def before(self, sequence: Any, flags: int, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The states that a request runs on.

        Args:
            sequence: Its id, a number or a text; empty or 0 for a request that belongs to none, such as a warm-up.
            flags: Triton's flags of the request.
            inputs: Its tensors; those of the states hold the initial values, or chance where none is configured.

        Raises:
            ValueError: The sequence has no state here, though it began earlier.
        """
        if flags & START or not sequence:
            return {
                state.input: inputs[state.input] if state.has_initial else _zeros(inputs[state.input])
                for state in self.states
            }
        if self.states and sequence not in self._kept:
            raise ValueError(f"the state of sequence {sequence} is gone, as its instance was restarted: start it again")
        return self._kept[sequence][1] if self.states else {}

    def after(self, sequence: Any, flags: int, outputs: Mapping[str, np.ndarray]) -> None:
        """Keep what a request made of the states, until the sequence's next one; nothing after its last."""
        now = time.monotonic()
        while self._kept and now - next(iter(self._kept.values()))[0] > self._forget_s:
            self._kept.popitem(last=False)  # the core ended it long ago, as nobody used it
        if flags & END:
            self._kept.pop(sequence, None)
        elif sequence and self.states:
            # A copy: an answer may be a part of its batch's, which would be held as long.
            self._kept[sequence] = now, {state.input: outputs[state.output].copy() for state in self.states}
            self._kept.move_to_end(sequence)


def _control_type(control: Mapping[str, Any]) -> str:
    """The tensor type of a control: by the values that it may have; a sequence's id says its own."""
    given = [kind for name, kind in _CONTROL_TYPES.items() if control.get(name)]
    return given[0] if given else str(control["data_type"])


def _described(state: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {"name": state[key], "data_type": state["data_type"], "dims": state["dims"]}


def _zeros(chance: np.ndarray) -> np.ndarray:
    """Where a state begins without an initial value: Triton leaves that to chance, and a graph to its START input."""
    if chance.dtype == object:
        return np.full(chance.shape, "", dtype=object)
    return np.zeros_like(chance)
