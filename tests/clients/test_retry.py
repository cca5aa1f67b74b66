"""When a call is sent again: the policy without a network, and then with real servers."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import (
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Hedge,
    InvalidInput,
    QueueFull,
    Retry,
    ServerBusy,
    ServerError,
    TritonkitClientError,
    Unauthenticated,
)
from tritonkit_client._engine.effects import Attempt, Deadline, Pause, Race
from tritonkit_client._engine.engine import Engine
from tritonkit_client._engine.events import Hooks
from tritonkit_client._engine.operations import Operations
from tritonkit_client._engine.retry import Budget, pushback_s
from tritonkit_client._engine.servers import Servers
from tritonkit_client._protocol.calls import InferRequest, Response
from tritonkit_client._protocol.errors import DEADLINE_EXCEEDED, NO_CONNECTION, Origin
from tritonkit_client._protocol.http_wire import HttpWire
from tritonkit_client._transport.endpoint import parse_endpoint

Connect = Callable[..., Client]

OK = Response(200)
REFUSED = Response(NO_CONNECTION, message="connection refused")
BUSY = Response(503, b'{"error": "slow down"}')
FULL = Response(503, b'{"error": "Exceeds maximum queue size"}')
UNLOADED = Response(503, b'{"error": "Request for unknown model: \'m\' version 1 is not at ready state"}')
BROKEN = Response(500, b'{"error": "boom"}')
DENIED = Response(401)
# A gateway's response while the server behind it is restarted.
GATEWAY = Response(502, b"<h1>502 Bad Gateway</h1>")
REQUEST = InferRequest("m", "", "r", (), ())


class ScriptedEngine:
    """An engine whose network is a list of responses; it notes the hosts that it tried and how long it waited."""

    def __init__(self, endpoint: str = "http://a", retry: Retry | None = None, **options: Any) -> None:
        endpoints = parse_endpoint(endpoint)
        self.servers = Servers(endpoints.all, lambda _: None)
        wire = HttpWire()
        hooks = Hooks(options.pop("hooks", None))
        self.operations = Operations(wire, endpoint)
        self.engine = Engine(
            wire, endpoints, self.servers, retry or Retry(), hooks, options.pop("hedge", None),
            options.pop("refreshes", False),
        )  # fmt: skip
        self.hosts: list[str] = []
        self.waited: list[float] = []

    def run(self, *responses: Response, timeout: float = math.inf, idempotent: bool = True) -> Any:
        """Ask for a model's repository index (load it, where that is not to be repeated)."""
        operation = self.operations.model_ready("m", "") if idempotent else self.operations.load("m", None)
        effects = self.engine.operate(operation, Deadline(timeout), {})
        coming = iter(responses)
        try:
            effect = next(effects)
            while True:
                answer = None
                if isinstance(effect, Attempt):
                    self.hosts.append(effect.server.endpoint.host)
                    answer = next(coming)
                else:
                    assert isinstance(effect, Pause)
                    self.waited.append(effect.seconds)
                effect = effects.send(answer)
        except StopIteration as done:
            assert not list(coming), "fewer attempts than expected"
            return done.value
        finally:
            effects.close()
            assert all(server.in_flight == 0 for server in self.servers.all)

    def fail(self, *responses: Response, **how: Any) -> TritonkitClientError:
        with pytest.raises(TritonkitClientError) as caught:
            self.run(*responses, **how)
        return caught.value


@pytest.mark.parametrize("response", [REFUSED, BUSY, FULL, GATEWAY])
def test_what_passes_is_tried_again(response: Response) -> None:
    scripted = ScriptedEngine()
    assert scripted.run(response, response, OK) is True
    assert len(scripted.waited) == 2


@pytest.mark.parametrize("response", [BROKEN, Response(DEADLINE_EXCEEDED), DENIED, Response(404)])
def test_what_would_fail_again_is_not(response: Response) -> None:
    error = ScriptedEngine().fail(response)
    assert error.attempts == 1
    assert "attempts" not in str(error)


def test_the_last_error_says_how_often_and_where() -> None:
    error = ScriptedEngine().fail(BUSY, REFUSED, FULL)
    assert type(error) is QueueFull
    assert (error.attempts, error.endpoint) == (3, "http://a:8000")
    assert "after 3 attempts" in str(error)


def test_no_retry_means_one_attempt() -> None:
    assert ScriptedEngine(retry=Retry(attempts=1)).fail(REFUSED).attempts == 1


def test_what_may_not_be_repeated_is_sent_once() -> None:
    assert type(ScriptedEngine().fail(REFUSED, idempotent=False)) is ConnectionFailed
    assert ScriptedEngine().fail(BUSY, idempotent=False).attempts == 1


def test_waits_are_random_below_a_limit_that_doubles() -> None:
    retry = Retry(base_s=0.1, cap_s=0.5)
    for attempt, limit in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (9, 0.5)):
        waits = [retry.wait_s(attempt, None) for _ in range(400)]
        assert max(waits) <= limit
        assert min(waits) < 0.1 * limit
        assert max(waits) > 0.9 * limit


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    scripted = ScriptedEngine(retry=Retry(base_s=1000, cap_s=1000))
    assert type(scripted.fail(BUSY, timeout=0.5)) is ServerBusy
    assert scripted.waited == []


def test_time_that_is_up_is_a_deadline_and_costs_no_attempt() -> None:
    scripted = ScriptedEngine()
    error = scripted.fail(timeout=1e-9)
    assert type(error) is DeadlineExceeded
    assert scripted.hosts == []


def test_an_outage_costs_no_more_retries_than_the_budget() -> None:
    scripted = ScriptedEngine(retry=Retry(budget=3, ratio=0.5))
    attempts = 0
    for _ in range(10):
        error = scripted.fail(*[REFUSED] * (3 if attempts == 0 else 2 if attempts == 3 else 1))
        attempts += error.attempts
    assert attempts == 10 + 3
    assert scripted.fail(REFUSED).attempts == 1
    for _ in range(2):  # two successes restore a retry
        scripted.run(OK)
    assert scripted.fail(REFUSED, REFUSED).attempts == 2


def test_a_budget_is_never_more_than_full() -> None:
    budget = Budget(Retry(budget=2, ratio=1))
    for _ in range(5):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_another_server_is_asked_at_once() -> None:
    scripted = ScriptedEngine("http://a,b,c")
    assert scripted.run(REFUSED, UNLOADED, OK) is True
    assert sorted(scripted.hosts) == ["a", "b", "c"]
    assert scripted.waited == []


def test_a_model_not_ready_on_a_server_is_requested_from_the_others() -> None:
    scripted = ScriptedEngine("http://a,b")
    scripted.run(UNLOADED, OK)
    missing = scripted.hosts[0]
    for _ in range(4):
        scripted.run(OK)
    assert missing not in scripted.hosts[1:]
    assert not any(server.out for server in scripted.servers.all)
    assert ScriptedEngine("http://a").run(UNLOADED) is False  # the result of `model_ready` for a ModelNotReady


def test_a_refused_credential_is_made_anew_for_one_more_attempt() -> None:
    assert ScriptedEngine(refreshes=True).run(DENIED, OK) is True
    error = ScriptedEngine(refreshes=True).fail(DENIED, DENIED)
    assert (type(error), error.attempts) == (Unauthenticated, 2)


def test_a_begun_stream_is_not_repeated_for_a_refused_credential() -> None:
    scripted = ScriptedEngine(refreshes=True)
    call = HttpWire().infer(REQUEST, Origin("http://a", "m"))
    servers = [scripted.servers.all[0]]
    for final, wait in ((False, 0.0), (True, None)):
        error = Unauthenticated("the token is too old")
        assert scripted.engine.note_failure(call, error, DENIED, servers[0], servers, Deadline(9), final) == wait


NOW = datetime.datetime(2026, 11, 24, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After": "Tue, 24 Nov 2026 12:00:07 GMT"}, 7.0),
        ({"Retry-After": "Tue, 24 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": f"Tue, 24 Nov 2026 12:00:07 +{'9' * 20}"}, None),
        ({"grpc-retry-pushback-ms": "250"}, 0.25),
        ({"grpc-retry-pushback-ms": "-1"}, math.inf),
        ({"grpc-retry-pushback-ms": "x"}, math.inf),
        ({"grpc-retry-pushback-ms": "9" * 5000}, math.inf),
    ],
)
def test_what_the_server_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert pushback_s(headers, NOW) == seconds


def test_what_the_server_asks_for_is_kept() -> None:
    scripted = ScriptedEngine(retry=Retry(base_s=0))
    assert scripted.run(Response(503, headers={"Retry-After": "2"}), OK) is True
    assert scripted.waited == [2.0]
    assert scripted.fail(Response(503, headers={"grpc-retry-pushback-ms": "-1"})).attempts == 1
    assert scripted.fail(Response(503, headers={"Retry-After": "2"}), timeout=1).attempts == 1
    # A server that asks for a wait gets it, also where there is another server.
    scripted = ScriptedEngine("http://a,b", retry=Retry(base_s=0))
    scripted.run(Response(503, headers={"Retry-After": "2"}), OK)
    assert scripted.waited == [2.0]
    assert len(set(scripted.hosts)) == 2


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base_s": -1}, {"ratio": -0.1}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="out of range"):
        Retry(**wrong)
    with pytest.raises(InvalidInput, match="out of range"):
        Hedge(percentile=100)


def test_each_event_is_told_and_a_listener_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    def fail(_: Any) -> None:
        raise ValueError("mine")

    hooks = {"request": [fail, seen.append], "response": [seen.append], "retry": [seen.append]}
    ScriptedEngine(hooks=hooks).run(BUSY, OK)
    assert [type(event).__name__ for event in seen] == [
        "RequestEvent", "ResponseEvent", "RetryEvent", "RequestEvent", "ResponseEvent",
    ]  # fmt: skip
    first, failed, again, second, good = seen
    assert (first.attempt, second.attempt, first.operation, first.model) == (1, 2, "model_ready", "m")
    assert failed.request is first
    assert isinstance(failed.error, ServerBusy)
    assert again.error is failed.error
    assert good.error is None
    assert "a listener of RequestEvent failed" in caplog.text
    with pytest.raises(InvalidInput, match="no event 'respond'"):
        Hooks({"respond": []})


def test_a_cancelled_call_is_announced_as_cancelled() -> None:
    seen: list[Any] = []
    scripted = ScriptedEngine(hooks={"response": [seen.append]})
    effects = scripted.engine.operate(scripted.operations.model_ready("m", ""), Deadline(1), {})
    next(effects)
    effects.close()
    assert [(event.cancelled, event.error) for event in seen] == [(True, None)]
    assert scripted.servers.all[0].in_flight == 0


def test_hedging_races_inferences_only_and_only_after_the_usual_time() -> None:
    scripted = ScriptedEngine("http://a,b", hedge=Hedge(percentile=50, at_least_s=0.001))
    assert scripted.run(OK) is True  # a call for readiness is not raced

    def infer() -> Race:
        call = HttpWire().infer(REQUEST, Origin("", "m", "r"))

        def operation() -> Any:
            return (yield call)

        effect = next(effects := scripted.engine.operate(operation(), Deadline(1), {}))
        assert isinstance(effect, Race)
        second = effect.second()
        assert second is not None
        assert second.server is not effect.first.server
        effect.done(second)
        with pytest.raises(StopIteration):
            effects.send((effect.first, Response(200, b'{"outputs": []}')))
        return effect

    assert infer().after_s == 0.001
    assert all(server.in_flight == 0 for server in scripted.servers.all)


def test_the_server_is_told_what_is_left_of_the_deadline(client: Client) -> None:
    def timeout_us(timeout: float) -> Any:
        return json.loads(client.infer("inspect", x=[1.0], timeout=timeout)["seen"][0])["timeout_us"]

    timeout_us(5)
    assert 1_000_000 < timeout_us(2) <= 2_000_000
    assert timeout_us(math.inf) == 0


def test_a_full_queue_empties_while_the_client_waits(server: TritonServer, connect: Connect) -> None:
    """Six calls at once on a queue of one request: without retries most are refused, with them all are served."""
    client = connect(server.grpc_url, retry=Retry(attempts=200, base_s=0.05, cap_s=0.1, budget=1000), timeout=20)
    outs = client.infer_many("queue", [{"timeout": [[0.05]]}] * 6)
    np.testing.assert_allclose([out["slept"][0, 0] for out in outs], 0.05)


def test_an_error_inside_the_model_is_not_repeated(client: Client) -> None:
    with pytest.raises(ServerError) as caught:
        client.infer("sleep", {"timeout": -1.0})
    assert caught.value.attempts == 1
