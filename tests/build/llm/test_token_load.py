"""The benchmark's load on a real model: both endpoints give the same tokens, from one process or several."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import pytest

from tritonkit.server import TritonServer
from tritonkit_load.tokens import figures, measuring, slo, streams
from tritonkit_load.tokens.endpoints import Endpoint, OpenAIEndpoint, TritonEndpoint
from tritonkit_load.tokens.generator import Generator, Here, Load
from tritonkit_load.tokens.measuring import Plan
from tritonkit_load.tokens.serving import load_recipe

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


def test_a_load_test_sees_both_sides_of_the_wire(language_server: TritonServer, language_repository: Path) -> None:
    recipe = load_recipe(language_repository.parent / "tiny.yaml")
    (state,) = language_server.language_models()
    options = argparse.Namespace(
        prompt_tokens="32-64", answer_tokens="16", shared_prefix=None, turns=2, requests=None, seed=0
    )
    workload, tokenizer = measuring.prepare(options, recipe)
    plan = Plan(workload, tokenizer, slo.parse("ttft_p95_ms=20000,goodput=0.5"), "poisson:4", 0, 3.0, 1.0, 0, 1)
    hosts = (language_server.grpc_url, language_server.metrics_url), (state.url, "")
    for host, metrics_url in hosts:
        server = measuring.named(host, metrics_url, "tiny")
        result, _ = measuring.measure(Here(), plan, server, "tiny")
        assert (result.figures.failed, result.notes) == (0, ()), result.figures.messages
        assert result.verdict.met
        assert result.figures.answer_tokens == 16
        assert result.figures.tpot_ms.count == result.figures.requests >= 12
        assert max(sample.running or 0 for sample in result.engine) >= 1
        assert all(sample.preemptions == 0 and sample.waiting is not None for sample in result.engine)
        assert 0 < max(sample.kv_usage or 0 for sample in result.engine) <= 1
