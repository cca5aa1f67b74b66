"""Notices that a process behind a model has ended, and loads the model again.

Triton 24.10 calls a model ready whose Python process is gone, and fails every request to it (from 25.12 on it does not
call it so; no release starts the process again). Here such a model is unloaded at once, so that it is not ready, and
loaded again after a pause that grows while it keeps ending.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import psutil

from tritonkit.server.reload import call

STUB = "triton_python_backend_stub"
_INSTANCE = 8  # its argument with the name of its instance: Triton's stub_launcher.cc, Launch()
LOOK_EVERY_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before a model is loaded again, doubled each time
STEADY_S = 60.0  # a model that ran so long begins with the first pause again
LEFT_S = 10.0  # for the requests in flight in a model's other processes
_SURE_S = 0.3  # a process that ends as it should is a zombie for a moment, too
_ASK_S = 10.0


@dataclass(frozen=True)
class Event:
    """What became of a model.

    Attributes:
        model: Its name.
        ended: How many of its processes have ended, which makes it not ready; 0 for an attempt to load it again.
        restarts: How often it was loaded again since the server's start.
        pause_s: Seconds until it is loaded again; None where it is ready.
        reason: Why it could not be loaded, or unloaded, in Triton's words.
    """

    model: str
    ended: int = 0
    restarts: int = 0
    pause_s: float | None = None
    reason: str = ""


@dataclass
class _Patient:
    """A model whose process ended."""

    ready_before: frozenset[str]
    pause_s: float
    due_s: float


@dataclass
class Supervisor:
    """Looks after the processes of one server's models.

    Args:
        pid: Of ``tritonserver``.
        url: Its address for HTTP; it must take calls to load and unload.
        timeout_s: How long one model may take to load, in seconds.

    Attributes:
        restarts: Model to how often it was loaded again.
    """

    pid: int
    url: str
    timeout_s: float
    restarts: dict[str, int] = field(default_factory=dict)
    _instances: dict[int, str] = field(default_factory=dict)  # process to the instance that it runs
    _leftovers: dict[int, float] = field(default_factory=dict)  # process to when it is ended, by time.monotonic()
    _patients: dict[str, _Patient] = field(default_factory=dict)
    _loaded_s: dict[str, float] = field(default_factory=dict)
    _pauses_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._note()

    def look(self) -> Iterator[Event]:
        """Unload models that lost a process, and load those whose pause is over; yields each event as it happens.

        Raises:
            OSError: The server cannot be reached.
        """
        if ended := self._ended():
            ready = self._ready()
            for model in sorted(ready):
                if count := sum(bool({instance, _group(instance)} & self._groups(model)) for instance in ended):
                    yield self._unload(model, count, ready)
        for model, patient in list(self._patients.items()):
            if time.monotonic() >= patient.due_s:
                yield self._load(model, patient)
        self._end_leftovers()

    def _ended(self) -> list[str]:
        """Instances whose processes have ended since the last look."""
        processes = self._note()
        gone = [pid for pid, process in processes.items() if pid in self._instances and _is_zombie(process)]
        if gone:
            time.sleep(_SURE_S)
            gone = [pid for pid in gone if _is_zombie(processes[pid])]
        ended = [self._instances[pid] for pid in gone]
        self._instances = {
            pid: instance for pid, instance in self._instances.items() if pid in processes and pid not in gone
        }
        return ended

    def _note(self) -> dict[int, psutil.Process]:
        """Note the instance of each process, which an ended one no longer tells; returns the processes by their ids."""
        processes = {process.pid: process for process in _children(self.pid)}
        for pid in set(processes) - set(self._instances) - set(self._leftovers):
            if instance := _instance(processes[pid]):
                self._instances[pid] = instance
        return processes

    def _end_leftovers(self) -> None:
        """End the other processes of unloaded models, which Triton keeps while it waits for answers that were lost."""
        for pid, due_s in list(self._leftovers.items()):
            process = next((child for child in _children(self.pid) if child.pid == pid), None)
            if process is None or time.monotonic() >= due_s:
                del self._leftovers[pid]
                if process is not None:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()

    def _groups(self, model: str) -> set[str]:
        """Names of a model's instance groups."""
        with urllib.request.urlopen(f"{self.url}/v2/models/{quote(model)}/config", timeout=_ASK_S) as answer:
            return {group["name"] for group in json.load(answer).get("instance_group", ())}

    def _unload(self, model: str, ended: int, ready: frozenset[str]) -> Event:
        steady = time.monotonic() - self._loaded_s.get(model, -STEADY_S) >= STEADY_S
        pause_s = FIRST_PAUSE_S if steady else min(self._pauses_s[model] * 2, LONGEST_PAUSE_S)
        self._pauses_s[model] = pause_s
        self._patients[model] = _Patient(ready, pause_s, time.monotonic() + pause_s)
        groups = self._groups(model)
        for pid, instance in list(self._instances.items()):
            if {instance, _group(instance)} & groups:
                del self._instances[pid]
                self._leftovers[pid] = time.monotonic() + LEFT_S
        reason = call(f"{self.url}/v2/repository/models/{quote(model)}/unload", _ASK_S)
        return Event(model, ended, self.restarts.get(model, 0), pause_s, reason)

    def _load(self, model: str, patient: _Patient) -> Event:
        reason = call(f"{self.url}/v2/repository/models/{quote(model)}/load", self.timeout_s)
        if reason:
            patient.pause_s = min(patient.pause_s * 2, LONGEST_PAUSE_S)
            patient.due_s = time.monotonic() + patient.pause_s
            return Event(model, 0, self.restarts.get(model, 0), patient.pause_s, reason)
        self._note()
        del self._patients[model]
        for ensemble in sorted(patient.ready_before - self._ready()):  # it went with its step
            call(f"{self.url}/v2/repository/models/{quote(ensemble)}/load", self.timeout_s)
        self.restarts[model] = self.restarts.get(model, 0) + 1
        self._loaded_s[model] = time.monotonic()
        return Event(model, 0, self.restarts[model])

    def _ready(self) -> frozenset[str]:
        return frozenset(model for model, state in self._states().items() if state == "READY")

    def _states(self) -> dict[str, str]:
        """Model to the state of its version; of the one that is ready where there are several."""
        request = urllib.request.Request(f"{self.url}/v2/repository/index", data=b"{}")
        with urllib.request.urlopen(request, timeout=_ASK_S) as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        states = {entry["name"]: entry.get("state", "") for entry in entries}
        return states | {entry["name"]: "READY" for entry in entries if entry.get("state") == "READY"}


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def _instance(process: psutil.Process) -> str:
    """The name of the instance that a process runs; empty for one that runs none, or has ended."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    return command[_INSTANCE] if len(command) > _INSTANCE and command[0].endswith(STUB) else ""


def _group(instance: str) -> str:
    """Triton numbers the instances of a group."""
    return re.sub(r"_\d+$", "", instance)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
