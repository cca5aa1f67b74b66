"""Load on language models: what is sent, when it is due, and what the times of tokens say."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import pytest

from tritonkit_load.tokens import figures, streams
from tritonkit_load.tokens.endpoints import Part, Request
from tritonkit_load.tokens.streams import Answer


def answer(due_s: float, *arrivals: tuple[float, int]) -> Answer:
    return Answer(due_s, arrivals[-1][0] if arrivals else due_s, arrivals, "")


def test_a_first_token_counts_from_when_its_request_was_due() -> None:
    answers = [answer(0.0, (0.5, 1), (0.6, 1)), answer(1.0, (1.2, 1)), answer(-0.5, (0.4, 1)), answer(9.0, (11.0, 1))]
    assert figures.first_tokens_ms(answers, 10) == pytest.approx([500, 200, 2000])
    assert figures.figures(answers, 2, 10).ttft_ms.count == 3


def test_every_gap_counts_once_and_tokens_of_one_response_have_none() -> None:
    both = [answer(0.0, (0.5, 2), (0.6, 1), (0.9, 3)), answer(0.0, (0.1, 1))]
    assert figures.gaps_ms(both, 10) == pytest.approx([0, 100, 300, 0, 0])
    summary = figures.figures(both, 1, 10)
    assert (summary.itl_ms.count, summary.itl_ms.p50) == (5, 0)
    assert summary.itl_ms.max == pytest.approx(300)
    assert summary.joined == pytest.approx(3 / 5)
    assert summary.output_tokens == 7
    assert summary.output_tokens_per_s == pytest.approx(0.7)


def test_tokens_of_the_warm_up_and_after_the_end_are_in_no_figure() -> None:
    summary = figures.figures([answer(-1.0, (-0.5, 1), (0.5, 1), (1.5, 1), (2.5, 1))], 1, 2)
    assert summary.output_tokens == 2
    assert (summary.requests, math.isnan(summary.ttft_ms.p50)) == (0, True)
    assert summary.itl_ms.count == 2


def test_percentiles_are_times_that_were_measured() -> None:
    percentiles = figures.summary([float(value) for value in range(1, 101)])
    assert (percentiles.p50, percentiles.p95, percentiles.p99, percentiles.max) == (50, 95, 99, 100)
    points = figures.quantiles([float(value) for value in range(1, 101)])
    assert points[0] == (0, 1)
    assert points[-1] == (0.99, 99)
    assert figures.quantiles([]) == []


def test_requests_are_the_same_for_a_seed_and_share_no_beginning() -> None:
    def first(seed: int | str, mark: str = "") -> list[Request]:
        return list(itertools.islice(streams.requests(seed, 8, 24, mark), 50))

    assert first("a") == first("a") != first("b")
    assert [request.prompt for request in first("a", "T")] == [f"T{request.prompt}" for request in first("a")]
    assert {len(request.prompt.split()) for request in first("a")} <= {8 + more for more in range(4, 8)}
    assert {request.tokens for request in first("a")} <= set(range(12, 25))
    assert len({request.prompt[:8] for request in [*first("a"), *first("b")]}) == 100


class Slow:
    """Answers with a token each 10 ms, and fails from its n-th answer on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.answers, self.fails_at = itertools.count(), fails_at

    def stream(self, request: Request) -> Iterator[Part]:
        if next(self.answers) >= self.fails_at:
            raise OSError("it has gone")
        for _ in range(request.tokens):
            time.sleep(0.01)
            yield Part("a", 1)

    def close(self) -> None:
        pass


def test_streams_are_busy_and_a_request_is_due_when_the_last_ended() -> None:
    answers = streams.run(Slow(), range(3), time.monotonic() + 0.1, 0.5, lambda stream: streams.requests(stream, 4, 8))
    assert not streams.failures(answers)
    first, *_ = answers
    assert first.due_s == pytest.approx(-0.1, abs=0.05)
    assert answers[-1].due_s < 0.5 <= answers[-1].end_s + 0.08
    ends = {reply.end_s for reply in answers}
    assert all(min(abs(reply.due_s - end) for end in ends) < 1e-6 for reply in answers[3:])


def test_a_failure_ends_its_stream_and_is_told_once() -> None:
    answers = streams.run(
        Slow(fails_at=2), range(2), time.monotonic(), 5, lambda stream: streams.requests(stream, 4, 4)
    )
    assert len(answers) == 4
    assert streams.failures(answers) == ["OSError: it has gone"]


def test_an_answer_of_another_length_than_asked_for_is_a_failure() -> None:
    class Short(Slow):
        def stream(self, request: Request) -> Iterator[Part]:
            yield Part(request.prompt, 1)

    now = time.monotonic()
    reply = streams.ask(Short(), Request("Hello", 5), now, now)
    assert reply.error == "WrongLength: 1 tokens came, and 5 were asked for"
