"""Load tests in plain Locust: its arguments, a session in every process that sends, and one result at the end.

The process that has Locust's web page or command line (the local one, or the master) makes the plan, tells the workers
to start together, adds up what they report with Locust's own reports, and notices a worker that dies. A worker only
runs its session. What a session does is :mod:`.load.session`'s, and the same in a :class:`.Generator`.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust import runners
from locust.env import Environment
from locust.runners import STATE_MISSING, STATE_RUNNING, LocalRunner, MasterRunner, WorkerRunner

from tritonkit import atomic
from tritonkit.errors import InputError, TritonkitError
from tritonkit_load.load import environment as environments
from tritonkit_load.load import payloads, slo, summary, text_report
from tritonkit_load.load.plan import AS_SAMPLED, Plan
from tritonkit_load.load.prepare import Prepared, prepare
from tritonkit_load.load.recording import Recording, write_rows
from tritonkit_load.load.result import Result, ServerSide
from tritonkit_load.load.serverside import Watch
from tritonkit_load.load.session import DRAINS_S, Session
from tritonkit_load.load.users import ModelUser

START, STOP, FINISHED = "tritonkit-start", "tritonkit-stop", "tritonkit-finished"
REPORT = "tritonkit"  # the key of ours in Locust's reports
LOCAL_AHEAD_S = 0.1
WORKERS_AHEAD_S = 1.0  # from the order to the start: a worker makes its requests in between
BEGINS_S = 5.0  # Locust's start of its users
TIMER_S = 0.5  # by which Locust's timer may be ahead of the test's beginning
# Without a word from a worker. Locust's own 3 s are soon over on a machine that is busy, and a pause is no death: what
# it made late is judged as lateness.
SILENT_S = 15
LONGEST_PREPARED_S = 120.0  # the first requests, sent one after the other, and the answers at the end
logger = logging.getLogger("tritonkit.load")


def add_arguments(parser: Any) -> None:
    """What Locust's command line asks for beyond Locust's own; the web page asks for what comes first."""
    parser.add_argument("--arrivals", default="", help="open loop, for example poisson:100; empty: a closed loop")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds of the run time that do not count")
    parser.add_argument("--mix", default="", help="weights of the models, for example a:3,b:1; empty: all alike")
    parser.add_argument("--batch-sizes", default="1", help="samples a request: 4, 1-8, or 1:0.7,8:0.3")
    parser.add_argument("--lengths", default=AS_SAMPLED, help="sizes of the dynamic dimension, likewise")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule and of every choice")
    parser.add_argument("--slo", default="", help="for example p99_ms=50,error_rate=0.001; empty: the recipe's")
    files = parser.add_argument_group("Triton")
    files.add_argument(
        "--recipe", action="append", required=True, help="whose model and samples are sent; may be repeated"
    )
    files.add_argument("--metrics-url", default="", help="Triton's metrics, for the GPU's figures")
    files.add_argument("--result", default="", help="write the result to this JSON file")
    files.add_argument("--record", default="", help="write every measured request to this CSV file")


class Worker:
    """One process that sends: runs a session when it is told to, and reports."""

    def __init__(self, environment: Environment, library: payloads.Library) -> None:
        self.environment = environment
        self.library = library
        self.session: Session | None = None
        self.runner: WorkerRunner = environment.runner
        self.runner.register_message(START, self._start)
        self.runner.register_message(STOP, self._stop)
        environment.events.report_to_master.add_listener(self._report)
        environment.events.test_stopping.add_listener(self.stop)
        environment.events.quitting.add_listener(self.stop)

    def _start(self, msg: Any, **_: Any) -> None:
        order = msg.data
        start_s = time.perf_counter() + WORKERS_AHEAD_S
        try:
            caller = caller_of(self.environment, order["host"])
            prepared = prepare(Plan(**order["plan"]), self.library, caller, probe=False)
        except TritonkitError as error:
            self.runner.send_message(FINISHED, Recording(problems=(f"a worker: {error.message}",)).to_json())
            return
        self.session = Session(
            prepared, self.environment.events, index=order["index"], count=order["count"], start_s=start_s,
            keep_rows=order["keep_rows"],
        )  # fmt: skip
        self.environment.session = self.session
        gevent.spawn(self._run, self.session)

    def _run(self, session: Session) -> None:
        session.run()
        session.prepared.caller.close()
        self.runner.send_message(FINISHED, session.drain().to_json())

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        if self.session is not None and not self.session.over.is_set():
            data[REPORT] = self.session.drain().to_json()

    def _stop(self, **_: Any) -> None:
        if self.session is not None:
            self.session.stop()

    def stop(self, **_: Any) -> None:
        """Locust stops this worker: end the session, unless it is about to end, and wait for that."""
        if self.session is not None:
            self.session.stop()
            self.session.over.wait(DRAINS_S)
            gevent.sleep(0)  # for the message about it


class Conductor:
    """The process that makes the plan and the result: the only one, or the master of workers."""

    def __init__(self, environment: Environment, library: payloads.Library) -> None:
        self.environment = environment
        self.library = library
        self.options: Namespace = environment.parsed_options
        self.run_time_s: float | None = self.options.run_time
        self.prepared: Prepared | None = None
        self.session: Session | None = None
        self.watch: Watch | None = None
        self.recording = Recording()
        self.waiting: set[str] = set()
        self.processes = 1
        self.stopping = False
        self.rings_s = math.inf  # when Locust's timer for the run time does, by `time.monotonic()`
        self.preparing = False
        self.over = Event()
        self.over.set()
        events = environment.events
        events.test_start.add_listener(self.start)
        events.test_stopping.add_listener(self.stop)
        events.quitting.add_listener(self.stop)
        if isinstance(environment.runner, MasterRunner):
            runners.HEARTBEAT_LIVENESS = SILENT_S
            environment.runner.register_message(FINISHED, self._finished)
            events.worker_report.add_listener(self._reported)

    @property
    def open(self) -> bool:
        """Whether the plan has a schedule."""
        return bool(self.options.arrivals)

    def start(self, **_: Any) -> None:
        """Locust begins a test: make the plan, and have it run."""
        self.rings_s = time.monotonic() + (self.options.run_time or math.inf) - TIMER_S
        self.preparing, self.stopping = True, False
        self.over.clear()
        try:
            plan = self._plan()
            slo.parse(self.options.slo)
            caller = caller_of(self.environment, self.environment.host)
            self.prepared = prepare(plan, self.library, caller)
        except BaseException as error:
            self.over.set()
            if not isinstance(error, TritonkitError):
                raise
            self._refuse(error)
            return
        finally:
            self.preparing = False
        self.recording = Recording(self.prepared.plan.duration_s)
        self.watch = caller.watch(tuple(self.prepared.weights), self.options.metrics_url or None)
        if isinstance(self.environment.runner, MasterRunner):
            self._start_workers(self.prepared.plan)
        else:
            gevent.spawn(self._run_here, self.prepared)

    def stop(self, **_: Any) -> None:
        """Locust ends the test: see to it that there is a result before anything is gone."""
        if time.monotonic() >= self.rings_s:
            # It has rung since before the first requests, which are no part of the test: that ends by itself.
            self.over.wait(LONGEST_PREPARED_S)
        if self.over.is_set() or self.preparing:
            return
        self.stopping = True
        if self.session is not None:
            self.session.stop()
        self._tell(STOP)
        self.over.wait(DRAINS_S + 5)

    def _plan(self) -> Plan:
        options = self.options
        plan = Plan(
            arrivals=options.arrivals or None,
            duration_s=0.0,
            warm_up_s=options.warm_up,
            users=options.num_users or 1,
            seed=options.seed,
            models=payloads.mix(options.mix),
            batch_sizes=options.batch_sizes,
            lengths=options.lengths,
        )
        run_time_s = options.run_time
        # Locust's web page says nothing of a field that was left empty, and the last test's value would stay.
        options.run_time = self.run_time_s
        return plan.lasting(run_time_s)

    def _refuse(self, error: TritonkitError) -> None:
        """The test cannot begin: say why, and end it."""
        logger.error("%s", error)
        self.environment.process_exit_code = error.exit_code
        if self.options.result:
            failure = {"error": error.message, "fix": error.fix, "exit_code": error.exit_code}
            Path(self.options.result).write_text(json.dumps(failure), encoding="utf-8")
        gevent.spawn(self._end_once_begun)

    def _end_once_begun(self) -> None:
        """End the test once the runner has started: before, it cannot be stopped."""
        end_s = time.monotonic() + BEGINS_S
        while self.environment.runner.state != STATE_RUNNING and time.monotonic() < end_s:
            gevent.sleep(0.05)
        self._end()

    def _end(self) -> None:
        runner = self.environment.runner
        (runner.quit if self.options.headless else runner.stop)()

    def _run_here(self, prepared: Prepared) -> None:
        self.session = Session(
            prepared, self.environment.events, start_s=time.perf_counter() + LOCAL_AHEAD_S, watch=self.watch,
            keep_rows=bool(self.options.record),
        )  # fmt: skip
        self.environment.session = self.session
        if self.stopping:
            self.session.stop()
        self.session.run()
        self.recording = self.session.drain()
        self._complete(self.session.server)

    def _start_workers(self, plan: Plan) -> None:
        runner = self.environment.runner
        clients = runner.clients
        names = [client.id for client in clients.ready + clients.running + clients.spawning]
        self.waiting, self.processes = set(names), len(names)
        for index, name in enumerate(names):
            share = range(index, plan.users, len(names))
            order = {
                "plan": asdict(plan) | {"users": max(len(share), 1)}, "index": index, "count": len(names),
                "host": self.environment.host, "keep_rows": bool(self.options.record),
            }  # fmt: skip
            runner.send_message(START, order, client_id=name)
        gevent.spawn(self._look_after, names)
        gevent.spawn_later(WORKERS_AHEAD_S + plan.warm_up_s, self._begin_watch)

    def _begin_watch(self) -> None:
        if self.watch is not None and not self.over.is_set():
            self.watch.begin()

    def _look_after(self, names: list[str]) -> None:
        """Wait until every worker has finished or died; a death ends the test, which then is worth nothing."""
        while self.waiting:
            gevent.sleep(0.1)
            dead = {name for name in self.waiting if self._is_dead(name)}
            if dead:
                self.waiting -= dead
                self.recording.problems += (
                    f"{len(dead)} of {len(names)} generator processes died: their part of the load was not sent",
                )
                logger.error("%s", self.recording.problems[-1])
                self._tell(STOP)
        gevent.sleep(0)
        self._complete(self.watch.end() if self.watch is not None else {})

    def _is_dead(self, name: str) -> bool:
        client = self.environment.runner.clients.get(name)
        return client is None or client.state == STATE_MISSING

    def _tell(self, what: str) -> None:
        if isinstance(self.environment.runner, MasterRunner):
            for name in self.waiting:
                self.environment.runner.send_message(what, {}, client_id=name)

    def _reported(self, client_id: str, data: dict[str, Any]) -> None:
        if client_id in self.waiting and REPORT in data:
            self.recording.add(Recording.from_json(data[REPORT]))

    def _finished(self, msg: Any, **_: Any) -> None:
        if msg.node_id in self.waiting:
            self.recording.add(Recording.from_json(msg.data))
            self.waiting.discard(msg.node_id)

    def _complete(self, server: Mapping[str, ServerSide]) -> None:
        """Make the result of the complete recording, show it, keep it, and end the test."""
        assert self.prepared is not None
        self.session = None
        result = summary.result(self.recording, self._context(self.prepared, server))
        self.prepared.caller.close()
        print("\n".join(text_report.lines(result)), flush=True)
        self.environment.process_exit_code = slo.exit_code(result)
        try:
            self._keep(result)
        except TritonkitError as error:
            logger.error("%s", error)
            self.environment.process_exit_code = error.exit_code
        self.over.set()
        gevent.spawn(self._end)

    def _keep(self, result: Result) -> None:
        if self.options.record:
            write_rows(Path(self.options.record), self.recording.rows)
        if self.options.result:
            atomic.write(Path(self.options.result), (json.dumps(result.to_json(), indent=2) + "\n").encode())

    def _context(self, prepared: Prepared, server: Mapping[str, ServerSide]) -> summary.Context:
        override = slo.parse(self.options.slo)
        host = self.environment.host
        return summary.Context(
            plan=prepared.plan,
            protocol=prepared.caller.protocol,
            host=host,
            processes=self.processes,
            weights=prepared.weights,
            slos={
                name: override or self.library.recipes[payloads.split_version(name)[0]].slo for name in prepared.weights
            },
            environment=environments.machine() | environments.triton(host, tuple(prepared.weights)),
            command=" ".join(["locust", *sys.argv[1:]]),
            alone_ms=prepared.alone_ms,
            server=server,
        )


def caller_of(environment: Environment, host: str | None) -> ModelUser:
    """A caller of the one user class of the test."""
    (kind,) = environment.user_classes
    caller: ModelUser = kind(environment)
    caller.host = host
    return caller


def choose_class(environment: Environment) -> None:
    """Where no user class was named, leave the first that speaks the host's protocol.

    Raises:
        InputError: No class speaks it, or several were named.
    """
    named = environment.parsed_options.user_classes
    scheme = (environment.host or "").partition("://")[0]
    fitting = [kind for kind in environment.user_classes if named or kind.protocol == scheme]
    if len(fitting) != 1:
        names = ", ".join(kind.__name__ for kind in environment.user_classes)
        raise InputError(f"--host {environment.host} and the user classes {names} do not make one test",
                         "--host grpc://HOST:PORT or http://HOST:PORT, and at most one class")  # fmt: skip
    environment.user_classes[:] = fitting


def begin(environment: Environment, **_: Any) -> None:
    """Locust is set up: read the recipes, and make this process a worker or the conductor."""
    try:
        library = payloads.Library([Path(path) for path in environment.parsed_options.recipe])
        choose_class(environment)
    except TritonkitError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from error
    if isinstance(environment.runner, WorkerRunner):
        Worker(environment, library)
    elif isinstance(environment.runner, MasterRunner | LocalRunner):
        Conductor(environment, library)
    if isinstance(environment.runner, LocalRunner):
        # Python would raise it in whichever greenlet runs at the moment, and end the session instead of Locust.
        gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    # The loop's clock stood still while all that was read, and Locust's timer for --run-time would start in the past.
    gevent.sleep(0)
