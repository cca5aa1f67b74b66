"""One process of a `load.generator.Generator`: Locust in it, orders as lines of JSON on standard input.

``{"prepare": plan, "host": url, "probe": true}`` and then ``{"start_s": …}``, on the clock that all processes of a
machine share; each has one line of JSON as its answer. It ends when its input does, so that it never outlives who
started it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import gevent
from gevent.fileobject import FileObject
from gevent.queue import Queue
from locust.env import Environment

from tritonkit.errors import InputError, TritonkitError
from tritonkit_load.load import users
from tritonkit_load.load.payloads import Library
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.prepare import Prepared, prepare
from tritonkit_load.load.session import Session


class Child:
    """Runs one plan after another.

    Args:
        orders: What `load.generator` says at the start: user, recipes, metrics_url, index, count.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self.index, self.count = orders["index"], orders["count"]
        self.metrics_url = orders["metrics_url"]
        self.user_class = user_class(orders["user"])
        self.environment = Environment(user_classes=[self.user_class])
        self.runner = self.environment.create_local_runner()
        self.library = Library([Path(path) for path in orders["recipes"]])
        self.prepared: Prepared | None = None

    def prepare(self, plan: Plan, host: str, *, probe: bool) -> dict[str, Any]:
        """Make a plan ready for the server at ``host``; the answer has what is known only then."""
        self._close()
        self.environment.host = host
        caller = self.user_class(self.environment)
        caller.host = host
        share = range(self.index, plan.users, self.count)  # of the users of a closed loop
        self.prepared = prepare(plan, self.library, caller, probe=probe)
        self.prepared = replace(self.prepared, plan=replace(self.prepared.plan, users=len(share)))
        return {
            "protocol": caller.protocol,
            "duration_s": self.prepared.plan.duration_s,
            "alone_ms": self.prepared.alone_ms,
            "weights": self.prepared.weights,
        }

    def run(self, start_s: float, *, keep_rows: bool) -> dict[str, Any]:
        """Run the plan that is ready."""
        assert self.prepared is not None
        plan, caller = self.prepared.plan, self.prepared.caller
        watch = None if self.index else caller.watch(tuple(self.prepared.weights), self.metrics_url)
        session = Session(
            self.prepared, self.environment.events, index=self.index, count=self.count, start_s=start_s, watch=watch,
            keep_rows=keep_rows,
        )  # fmt: skip
        self.environment.session = session
        if not plan.open and plan.users:
            self.runner.start(plan.users, spawn_rate=plan.spawn_rate)
        session.run()
        if not plan.open and plan.users:
            self.runner.stop()
        server = {name: asdict(side) for name, side in session.server.items()}
        return {"recording": session.drain().to_json(), "server": server}

    def _close(self) -> None:
        if self.prepared is not None:
            self.prepared.caller.close()
            self.prepared = None


def user_class(name: str) -> type[users.ModelUser]:
    """A class of :mod:`.load.users`, or the one that ``module:Class`` names.

    Raises:
        InputError: The class does not exist, or is no ``ModelUser``.
    """
    module, _, attribute = name.rpartition(":")
    try:
        user = getattr(importlib.import_module(module) if module else users, attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"there is no user class {name!r}: {error}", "TritonGrpcUser, or module:Class") from error
    if not (isinstance(user, type) and issubclass(user, users.ModelUser)):
        raise InputError(f"{name!r} is no subclass of load.users.ModelUser", "make it one")
    return user


def _obey(child: Child, order: dict[str, Any]) -> dict[str, Any]:
    if "prepare" in order:
        return child.prepare(Plan(**order["prepare"]), order["host"], probe=order["probe"])
    return child.run(order["start_s"], keep_rows=order["keep_rows"])


def _answer(out: IO[str], work: Callable[[], dict[str, Any]]) -> None:
    """Run ``work``, and print its answer or its error."""
    try:
        answer = work()
    except TritonkitError as error:
        answer = {"error": error.message, "fix": error.fix, "exit_code": error.exit_code}
    print(json.dumps(answer), file=out, flush=True)


def main() -> None:
    """Carry out orders until the input ends."""
    # What is printed by anybody else, a user class's module for example, must not be taken for an answer.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines: Queue = Queue()

    def read() -> None:
        for line in FileObject(sys.stdin.fileno(), "r", encoding="utf-8"):
            lines.put(json.loads(line))
        os._exit(0)

    gevent.spawn(read)
    child: list[Child] = []

    def begin() -> dict[str, Any]:
        child.append(Child(json.loads(sys.argv[1])))
        return {"ready": True}

    _answer(out, begin)
    while True:
        _answer(out, partial(_obey, child[0], lines.get()))


if __name__ == "__main__":
    main()
