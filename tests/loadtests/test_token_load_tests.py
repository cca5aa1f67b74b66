"""Load tests in tokens against a real streaming server: stopped, killed, silent, or without counts."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from streamserver import stream_server

from tritonkit_load import run
from tritonkit_load.reporting import tokenpage
from tritonkit_load.tokens import capacity, measuring, sessions, slo, summary, workload
from tritonkit_load.tokens import tokenizer as tokenizers
from tritonkit_load.tokens.endpoints import OpenAIEndpoint, Request
from tritonkit_load.tokens.generator import Here
from tritonkit_load.tokens.measuring import Plan
from tritonkit_load.tokens.sessions import Sessions
from tritonkit_load.tokens.streams import Answer
from tritonkit_load.tokens.tokenizer import Tokenizer
from tritonkit_load.tokens.workload import Drawn
from tritonkit_load.tuning import limit

CONTEXT = 512


def send(url: str, drawn: Drawn, **load: Any) -> list[Answer]:
    """The answers of a load from this process, a second of warm-up included."""
    how = {"duration_s": 4.0, "warm_up_s": 0.5, "patience_s": 5.0} | load
    return Sessions(OpenAIEndpoint(url, "m"), drawn, seed="0", **how).send(0, 1, time.monotonic())


def drawn(model: Path, prompts: str = "32", answers: str = "4", turns: int = 1) -> Drawn:
    return workload.drawn(prompts, answers, Tokenizer(model.parent / "m"), CONTEXT, turns=turns)


def verb(monkeypatch: pytest.MonkeyPatch, model: Path, *arguments: str) -> int:
    """The exit code of `tritonkit-load run`."""
    reports = str(model.parent / "reports")
    monkeypatch.setattr(sys, "argv", ["run.py", "--model", str(model), "--reports", reports, *arguments])
    return run.main()


def test_an_open_loop_counts_the_whole_length_of_a_stop(character_model: Path) -> None:
    due = tuple(index / 20 for index in range(80))
    with stream_server() as (url, process):
        send(url, drawn(character_model), due_s=(0.0,), duration_s=0.1)  # it answers: the stop hits a running server
        stops = (threading.Timer(1.5, process.send_signal, [signal.SIGSTOP]),
                 threading.Timer(3.5, process.send_signal, [signal.SIGCONT]))  # fmt: skip
        for stop in stops:
            stop.start()
        answers = send(url, drawn(character_model), due_s=due)
    assert [answer.error for answer in answers] == [""] * 80  # those that were due meanwhile were sent, and counted
    figures = summary.summarize(answers, 4.0, None)
    assert 1900 < figures.ttft_ms.max < 3500
    assert 1900 < figures.e2e_ms.max < 3700
    assert sum(summary.times_ms(answer)["ttft"] > 150 for answer in answers) > 30  # due while it was stopped: 40
    late = [answer.arrivals[0][0] - answer.due_s for answer in answers if 1.2 <= answer.due_s <= 2.7]
    assert all(earlier > later - 0.3 for earlier, later in pairwise(late))  # the later, the shorter


def test_a_closed_loop_keeps_its_users_busy_and_a_session_goes_on_after_its_answer(character_model: Path) -> None:
    with stream_server() as (url, _):
        answers = send(url, drawn(character_model, "8", "4", turns=2), users=2, duration_s=1.0)
    assert {answer.error for answer in answers} == {""}
    first, second = sorted(answers, key=lambda answer: answer.due_s)[0:4:2]
    assert len(answers) > 20
    assert second.due_s == pytest.approx(first.end_s, abs=0.2)
    assert max(answer.prompt_tokens for answer in answers) > 1.8 * min(answer.prompt_tokens for answer in answers)


def test_a_later_turn_has_the_earlier_ones_in_front_of_it() -> None:
    chat = Request("", 4, (("user", "one"),), prompt_tokens=3)
    later = Request("", 4, (("user", "two"),), prompt_tokens=3)
    request = sessions.continued(chat, Answer(0, 1, ((1.0, 2),), "yes"), later)
    assert request.messages == (("user", "one"), ("assistant", "yes"), ("user", "two"))
    assert request.prompt_tokens == 8
    plain = sessions.continued(Request("one", 4), Answer(0, 1, ((1.0, 2),), " yes"), Request(" two", 4))
    assert plain.prompt == "one yes two"


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("nothing", "StreamedNothing"), ("whole", "StreamedNothing"), ("breaks", "CutOff"), ("dies", "CutOff")],
)
def test_a_server_that_does_not_stream_to_the_end_is_a_typed_failure(
    character_model: Path, mode: str, kind: str
) -> None:
    with stream_server(mode) as (url, _):
        answers = send(url, drawn(character_model), due_s=tuple(index / 20 for index in range(20)), duration_s=1.0)
    errors = summary.summarize(answers, 1.0, None).errors
    assert errors[kind] >= (1 if mode == "dies" else 6)
    if mode == "dies":
        assert errors["ConnectionRefusedError"] > 5


def test_a_server_that_never_ends_an_answer_is_given_up(character_model: Path) -> None:
    with stream_server("normal", 30) as (url, _):
        answers = send(url, drawn(character_model), due_s=(0.0,), duration_s=0.2, patience_s=0.5)
    assert [answer.error.partition(":")[0] for answer in answers] == ["Unanswered"]


def test_tokens_that_the_server_does_not_send_are_counted_with_the_tokenizer(character_model: Path) -> None:
    with stream_server("uncounted") as (url, _):
        answers = send(url, drawn(character_model), due_s=(0.0,), duration_s=0.2)
    (counted,) = tokenizers.counted(answers, Tokenizer(character_model.parent / "m"))
    assert answers[0].tokens == 0
    assert counted.tokens == len(counted.text) == 8  # each "a " has two, and one time
    assert sum(gap == 0 for gap in summary.gaps_ms(counted)) == 4


def test_the_verb_writes_a_report_and_says_whether_the_slo_was_met(
    character_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = character_model.parent / "requests.jsonl"
    lines = [{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "session": "a"},
             {"messages": [{"role": "user", "content": "More"}], "max_tokens": 6, "session": "a"}]  # fmt: skip
    recorded.write_text("\n".join(map(json.dumps, lines)))
    record = character_model.parent / "record.csv"
    arguments = ("--users", "1", "--duration", "1s", "--warm-up", "0s", "--requests", str(recorded))
    with stream_server("uncounted") as (url, _):
        bounds = "ttft_p95_ms=0.1,itl_p95_ms=2000,goodput=0.5"
        assert (
            verb(monkeypatch, character_model, *arguments, "--host", url, "--slo", bounds, "--record", str(record)) == 1
        )
    text = capsys.readouterr().out
    assert "SLO NOT MET" in text
    assert "TTFT: time to the first token: from when the request was due" in text
    assert "counted with the tokenizer" in text
    folder = character_model.parent / "reports" / "m"
    result = json.loads((folder / "result.json").read_text())
    assert [(check["name"], check["met"]) for check in result["verdict"]["checks"]] == [
        ("ttft_p95_ms", False), ("itl_p95_ms", True), ("error_rate", True), ("goodput", False),
    ]  # fmt: skip
    assert result["figures"]["requests"] >= 4
    assert {sample["preemptions"] for sample in result["engine"]} == {0}
    suite = ElementTree.parse(folder / "junit.xml").getroot()
    assert suite.attrib["failures"] == "2"
    page = (folder / "index.html").read_text()
    assert "The SLO is not met" in page
    assert "What the engine saw" in page
    assert len(record.read_text().splitlines()) == result["figures"]["requests"] + 1


def test_a_rate_that_the_server_cannot_serve_is_told_from_those_that_it_can(character_model: Path) -> None:
    bounds = slo.parse("ttft_p95_ms=400")
    tokenizer = Tokenizer(character_model.parent / "m")
    with stream_server("one_by_one", 0.03) as (url, _):  # 120 ms an answer: eight a second
        server = measuring.named(url, "", "m")
        plan = Plan(drawn(character_model), tokenizer, bounds, None, 0, 3.0, 0.5, 0, 1, 20.0)
        ask = capacity.Asker(Here(), plan, server, "m")
        slow, fast = ask(2.0), ask(16.0)
    assert (slow.met, fast.met) == (True, False)
    assert "ttft p95" in fast.why
    result = capacity.with_curve(limit.of_points([slow, fast], 2.0), ask.results)
    assert [point.met for point in result.curve] == [True, False]
    assert result.capacity is not None
    assert "2.00 sessions a second within the SLO" in tokenpage.render(result)
    assert "16.00/s  missed" in "\n".join(capacity.lines(limit.of_points([slow, fast], 2.0), result))
