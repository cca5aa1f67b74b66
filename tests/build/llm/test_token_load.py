"""The benchmark's load on a real model: both endpoints give the same tokens, from one process or several."""

from __future__ import annotations

import itertools
import time

import pytest
from tokens import figures, streams
from tokens.endpoints import Endpoint, OpenAIEndpoint, TritonEndpoint
from tokens.generator import Generator, Load

from tritonkit.server import TritonServer

pytestmark = pytest.mark.llm


@pytest.fixture
def endpoints(language_server: TritonServer) -> tuple[Endpoint, Endpoint]:
    (state,) = language_server.language_models()
    return TritonEndpoint(language_server.grpc_url, "tiny"), OpenAIEndpoint(state.url, "tiny")


def test_both_endpoints_give_the_same_answers_and_count_every_token(endpoints: tuple[Endpoint, Endpoint]) -> None:
    for request in itertools.islice(streams.requests(0, 16, 24), 4):
        now = time.monotonic()
        through, own = (streams.ask(endpoint, request, now, now) for endpoint in endpoints)
        assert (through.error, own.error) == ("", "")
        assert through.text == own.text
        assert through.tokens == own.tokens == request.tokens == len(through.text)


def test_several_processes_send_one_load(endpoints: tuple[Endpoint, Endpoint]) -> None:
    with Generator(2) as generator:
        for endpoint in endpoints:
            sent = generator.run(Load(endpoint, 3, 1.0, 0.5, "seed", 16, 16, "T"))
            assert not streams.failures(sent.answers)
            assert sent.answers[0].due_s == pytest.approx(-0.5, abs=0.3)
            measured = figures.figures(sent.answers, 3, 1.0)
            assert measured.requests >= 3
            assert measured.itl_ms.count > measured.requests
            assert 0 < sent.busiest < 1.2


def test_what_a_server_refuses_is_the_answers_failure(endpoints: tuple[Endpoint, Endpoint]) -> None:
    (request,) = itertools.islice(streams.requests(0, 400, 24), 1)
    now = time.monotonic()
    for endpoint in endpoints:
        assert "maximum context length is 1024 tokens" in streams.ask(endpoint, request, now, now).error
