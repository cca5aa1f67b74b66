"""SLOs, lengths, recorded requests and figures of language models: logic without any server."""

from __future__ import annotations

import json
import random
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tritonkit.errors import InputError
from tritonkit.recipe import TokenSlo
from tritonkit_load import capacity, run
from tritonkit_load.load import slo as tensor_slo
from tritonkit_load.tokens import capacity as token_capacity
from tritonkit_load.tokens import engine_metrics, slo, summary, workload
from tritonkit_load.tokens.result import Generator
from tritonkit_load.tokens.streams import Answer
from tritonkit_load.tokens.tokenizer import Tokenizer


def answer(due_s: float, *at: float, error: str = "", sent_s: float | None = None) -> Answer:
    end_s = at[-1] if at else due_s + 1
    arrivals = tuple((time_s, 1) for time_s in at)
    return Answer(due_s, end_s, arrivals, "x" * len(at), error, due_s if sent_s is None else sent_s)


def test_an_slo_in_tokens_is_written_flat_and_is_the_recipes() -> None:
    parsed = slo.parse("ttft_p95_ms=500, itl_p99_ms=120,tpot_p50_ms=60,e2e_p95_ms=9000,error_rate=0.01,goodput=0.9")
    assert parsed == TokenSlo.model_validate(
        {"ttft": {"p95_ms": 500}, "itl": {"p99_ms": 120}, "tpot": {"p50_ms": 60}, "e2e": {"p95_ms": 9000},
         "error_rate": 0.01, "goodput": 0.9}
    )  # fmt: skip
    assert slo.format_slo(parsed).startswith("ttft p95 ≤ 500 ms, itl p99 ≤ 120 ms, tpot p50 ≤ 60 ms")
    assert slo.parse("") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p99_ms=50", "a language model streams its answers"), ("ttft_p96_ms=5", "did you mean ttft_p9"),
        ("ttft_p95_ms=fast", "ttft_p95_ms: Input should be a valid number"), ("ttft_p95_ms=0", "greater than 0"),
        ("goodput=0.9", "add ttft_p95_ms=500"), ("ttft_p95_ms=5,ttft_p95_ms=6", "given twice"),
        ("ttft=5", "ttft: unknown"),
    ],
)  # fmt: skip
def test_what_is_no_slo_in_tokens_is_refused_with_those_that_there_are(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        slo.parse(text)
    assert "ttft, itl, tpot and e2e" in error.value.fix


def test_an_slo_in_tokens_for_a_model_of_tensors_is_refused_with_what_it_has() -> None:
    with pytest.raises(InputError, match="this model gives none; it has p50_ms, p95_ms and p99_ms"):
        tensor_slo.parse("ttft_p95_ms=500")


def test_goodput_counts_requests_that_kept_every_bound() -> None:
    bounds = slo.parse("ttft_p95_ms=500,itl_p50_ms=100,tpot_p95_ms=200,e2e_p95_ms=2000,goodput=0.5")
    good = answer(0, 0.4, 0.5, 0.6, 0.9)  # its median gap is 100 ms, its longest 300
    late, slow = answer(0, 0.6, 0.7), answer(0, 0.1, 0.4, 0.7, 0.71)
    long, failed = answer(0, 0.1, *(0.1 + 0.05 * index for index in range(1, 50))), answer(0, error="CutOff: it died")
    figures = summary.summarize([good, late, slow, long, failed], 10, bounds)
    assert figures.goodput == pytest.approx(1 / 5)
    assert (figures.requests, figures.failed, figures.errors, figures.messages) == (
        5, 1, {"CutOff": 1}, {"CutOff": "it died"},
    )  # fmt: skip
    assert bounds is not None
    met = {check.name: check.met for check in slo.checks("m", bounds, figures)}
    assert met == {
        "ttft_p95_ms": False, "itl_p50_ms": True, "tpot_p95_ms": False, "e2e_p95_ms": False, "error_rate": False,
        "goodput": False,
    }  # fmt: skip


def test_a_bound_without_a_figure_is_not_met() -> None:
    bounds = TokenSlo.model_validate({"ttft": {"p95_ms": 500}})
    figures = summary.summarize([answer(0, error="StreamedNothing: no token")], 10, bounds)
    assert [check.found for check in slo.checks("m", bounds, figures)] == [None, 1.0]
    assert summary.judge("m", bounds, figures, Generator(None, 0.1, ())).met is False


def test_tpot_is_the_mean_after_the_first_token_and_times_count_from_when_a_request_was_due() -> None:
    assert summary.times_ms(answer(1.0, 1.5, 1.6, 1.9)) == pytest.approx({"ttft": 500, "tpot": 200, "e2e": 900})
    assert "tpot" not in summary.times_ms(answer(1.0, 1.5))
    figures = summary.summarize([answer(-1, 0.5), answer(0.5, 2.5, 12), answer(11, 12)], 10, None)
    assert (figures.requests, figures.ttft_ms.max, figures.output_tokens) == (1, 2000, 2)


def test_a_generator_that_is_late_or_busy_makes_a_run_invalid() -> None:
    answers = [answer(at / 10, at / 10 + 0.05, sent_s=at / 10 + 0.02) for at in range(50)]
    figures = summary.summarize(answers, 5, None)
    assert "left 20.0 ms or more" in summary.health(answers, 5, 0.1, figures, loop="open").why[0]
    assert not summary.health(answers, 5, 0.1, figures, loop="closed").why
    assert "of a core" in summary.health(answers, 5, 0.95, figures, loop="closed").why[0]
    assert not summary.judge("m", None, figures, summary.health(answers, 5, 0.95, figures, loop="open")).valid


def test_requests_that_pile_up_are_told_from_chance() -> None:
    steady = [answer(at / 10, at / 10 + 0.1, at / 10 + 1) for at in range(200)]
    behind = [answer(at / 10, at / 10 + 0.1, 3 * at / 10 + 1) for at in range(200)]
    assert summary.falls_behind(steady, 20) == 0
    assert summary.falls_behind(behind, 20) > 0.1


@pytest.mark.parametrize(
    ("text", "low", "high", "mean"), [("64", 64, 64, 64), ("10-30", 10, 30, 20), ("lognormal:50,1,400", 1, 400, 77)]
)
def test_lengths_are_drawn_as_they_are_written(text: str, low: int, high: int, mean: float) -> None:
    lengths, choice = workload.lengths(text, "prompts"), random.Random(0)
    values = [lengths.draw(choice) for _ in range(4000)]
    assert low <= min(values) <= max(values) <= high
    assert sum(values) / 4000 == pytest.approx(mean, rel=0.08)


@pytest.mark.parametrize("text", ["0", "9-3", "ten", "lognormal:50,1", "lognormal:500,1,400", "1-", ""])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="are no lengths"):
        workload.lengths(text, "prompts")


def test_drawn_prompts_have_their_lengths_and_their_shared_prefix(character_model: Path) -> None:
    tokenizer = Tokenizer(character_model.parent / "m")
    drawn = workload.drawn("40-60", "5", tokenizer, 512, turns=2, prefix=100)
    first = list(islice(drawn.sessions("0"), 50))
    assert first == list(islice(drawn.sessions("0"), 50)) != list(islice(drawn.sessions("1"), 50))
    for opening, later in first:
        assert opening.prompt.startswith(drawn.prefix)
        assert not later.prompt.startswith(drawn.prefix)
        assert tokenizer.count(opening.prompt) == pytest.approx(opening.prompt_tokens, abs=2)
        assert 40 <= later.prompt_tokens <= 62
    assert len({opening.prompt[: len(drawn.prefix) + 20] for opening, _ in first}) == 50
    with pytest.raises(InputError, match=r"100 shared tokens and 6 x \(60 \+ 5\)\), and the model's context is 459"):
        workload.drawn("40-60", "5", tokenizer, 459, turns=6, prefix=100)


def test_recorded_requests_are_sessions_in_their_order(character_model: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"prompt": "one", "session": 1}, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
        {"prompt": "two", "session": 1, "max_tokens": 7, "model": "any"},
    ]  # fmt: skip
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    recorded = workload.recorded(path, Tokenizer(character_model.parent / "m"), 512)
    assert [[turn.prompt or turn.messages[0][1] for turn in session] for session in recorded.recorded] == [
        ["one", "two"], ["hi"],
    ]  # fmt: skip
    assert [turn.tokens for turn in recorded.recorded[0]] == [workload.ANSWER, 7]
    assert not recorded.recorded[0][0].exact
    assert len(list(islice(recorded.sessions("0"), 5))) == 5


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"prompt": "a"}', "{"], "line 2 is no JSON"), (["[]"], "line 1 is no request"), ([""], "has no requests"),
        (['{"prompt": "a", "messages": []}'], "is no request"), (['{"prompt": "a", "max_tokens": 0}'], "max_tokens is 0"),
        (['{"messages": [{"role": "user"}]}'], "messages is"), (['{"prompt": ""}'], "prompt is ''"),
        (['{"prompt": "a", "max_tokens": 5}', json.dumps({"prompt": "a" * 510, "max_tokens": 5})],
         "line 2: a prompt of 510 tokens and an answer of 5 do not fit into the model's context of 512"),
        ([json.dumps({"prompt": "a" * 200, "max_tokens": 50, "session": 1})] * 3,
         "line 3: a prompt of 200 tokens and an answer of 50 after 500 of the session's turns before"),
    ],
)  # fmt: skip
def test_a_recorded_file_that_cannot_be_sent_is_refused(
    lines: list[str], words: str, character_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        workload.recorded(path, Tokenizer(character_model.parent / "m"), 512)


def test_tokens_belong_to_the_part_in_which_they_end(character_model: Path) -> None:
    tokenizer = Tokenizer(character_model.parent / "m")
    assert tokenizer.split(["ab", "", "cde"]) == [2, 0, 3]


def test_the_engines_metrics_are_read_under_vllms_names() -> None:
    page = (
        '# HELP vllm:num_requests_running x\nvllm:num_requests_running{model="m",version="1"} 3\n'
        'vllm:num_requests_running{model="other"} 5\nvllm:num_requests_waiting{model="m"} 2\n'
        'vllm:kv_cache_usage_perc{model="m"} 0.5\nvllm:num_preemptions_total{model="m"} 7\nnv_inference_count 5\n'
    )
    assert engine_metrics.readings(page, "m") == {"running": 3, "waiting": 2, "kv_usage": 0.5, "preemptions": 7}
    assert engine_metrics.readings('vllm:num_requests_running{model_name="/models/m"} 4', "m") == {"running": 4}


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (run, ["--slo", "p99_ms=50"], "a language model streams its answers"),
        (run, ["--batch-sizes", "4"], "--batch-sizes and --lengths are of tensors"),
        (run, ["--prompt-tokens", "500", "--answer-tokens", "50"], "the model's context is 512"),
        (run, ["--host", "ftp://x", "--prompt-tokens", "9"], "no server of a language model"),
        (run, ["--requests", "nowhere.jsonl"], "cannot read the recorded requests nowhere.jsonl"),
        (capacity, [], "has no SLO to search by"),
        (capacity, ["--slo", "error_rate=0.1"], "has no SLO to search by"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_starts(
    module: Any, arguments: list[str], words: str, character_model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    reports = character_model.parent / "none"
    monkeypatch.setattr(sys, "argv", ["verb", "--model", str(character_model), "--reports", str(reports), *arguments])
    assert module.main() == 2
    assert words in capsys.readouterr().err
    assert not reports.exists()


def test_options_of_language_models_are_refused_for_tensors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--model", "all_minilm_l6_v2", "--answer-tokens", "5"])
    assert run.main() == 2
    assert "--answer-tokens: of language models, and all_minilm_l6_v2 is none" in capsys.readouterr().err


def test_a_run_whose_requests_pile_up_has_not_met_its_slo() -> None:
    bounds = TokenSlo.model_validate({"ttft": {"p95_ms": 500}})
    healthy = Generator(0.1, 0.1, ())

    def probe(answers: list[Answer]) -> Any:
        figures = summary.summarize(answers, 20, bounds)
        result = _result(figures, summary.judge("m", bounds, figures, healthy), healthy)
        return token_capacity.probe(10.0, result, answers)

    steady = probe([answer(at / 10, at / 10 + 0.1, at / 10 + 1) for at in range(200)])
    behind = probe([answer(at / 10, at / 10 + 0.1, 3 * at / 10 + 1) for at in range(200)])
    assert (steady.met, steady.overloaded) == (True, False)
    assert (behind.met, behind.overloaded) == (False, True)
    assert "fell behind" in behind.why


def _result(figures: Any, verdict: Any, generator: Generator) -> Any:
    from tritonkit_load.tokens.result import TokenLoad, TokenResult

    load = TokenLoad("http", "http://h/v1", "open", "poisson:10", None, 1, 1.0, 20.0, "w", 0)
    return TokenResult(
        "2026-11-30", "c", "m", {}, load, "", figures, verdict, generator, (), (), (), (), (), summary.FORMULAS
    )
