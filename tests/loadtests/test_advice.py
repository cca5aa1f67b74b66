"""Every page says what to do next, from its figures alone: which setting, which command, as a reader types them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import results
from pages import read
from results import latencies, model

from tritonkit.errors import CheckFailed
from tritonkit_load.benchmarks.peers.catalog import PEERS
from tritonkit_load.load import slo, text_report
from tritonkit_load.load.result import Limit
from tritonkit_load.load.slo import Slo
from tritonkit_load.reporting import advice, comparepage, gpupage, loadpage, tunepage, verdict_text
from tritonkit_load.reporting.comparison_advice import after_comparison
from tritonkit_load.reporting.comparison_result import ComparisonResult, Row
from tritonkit_load.reporting.gpu_advice import after_gpu
from tritonkit_load.reporting.gpu_result import GateRow, GpuResult, InProcess, Load, Memory, Mixed, Served, Spread
from tritonkit_load.reporting.verbs import variables
from tritonkit_load.tuning import outcome, tuner
from tritonkit_load.tuning.limit import BUSY_FIX

TYPED = "tritonkit-load {} --target cpu --model two_towers.yaml --slo p99_ms=30"
GIB = 2**30


# --- the same model, as it is typed ---


@pytest.mark.parametrize(
    ("command", "name", "typed"),
    [
        ("tritonkit-load run --model efficientnet_lite0 --users 8", "efficientnet_lite0", "MODEL=efficientnet_lite0"),
        (TYPED.format("run"), "two_towers", "MODEL=two_towers.yaml SLO=p99_ms=30"),
        ("tritonkit-load run '--model=my models/a.yaml'", "net", "MODEL='my models/a.yaml'"),
        ("tritonkit-load run --model a.yaml:3,b.yaml:1", "b", "MODEL=b.yaml"),
        ("tritonkit-load compare --models x/a.yaml,b", "b", "MODEL=b"),
        ("make compare", "a", "MODEL=a"),
        ("it's no command", "a", "MODEL=a"),
    ],
)  # fmt: skip
def test_a_next_verb_names_the_recipe_as_the_last_one_did(command: str, name: str, typed: str) -> None:
    assert variables(command, name) == typed


def test_a_run_against_a_server_of_ones_own_is_not_told_to_name_it_and_keeps_it() -> None:
    command = TYPED.format("run") + " --host grpc://10.0.0.5:8001"
    late = results.result(command=command)
    late = replace(late, generator=replace(late.generator, valid=False, lateness_p99_ms=90.0, cpu=0.99))
    shown = " ".join(advice.after_load(late))
    assert "(--host)" not in shown
    assert "send from another machine, as near to the server" in shown
    assert "--processes 2 shares the load" in shown
    assert "PROCESSES=" not in shown
    met = " ".join(advice.after_load(results.result(command=command)))
    following = "tritonkit-load capacity --model two_towers.yaml --host grpc://10.0.0.5:8001 --slo p99_ms=30"
    assert f"`{following}`" in met
    started = results.result(command=TYPED.format("run"))
    started = replace(started, generator=replace(started.generator, valid=False, lateness_p99_ms=90.0))
    assert "send from another machine (--host)" in " ".join(advice.after_load(started))


def test_a_recipe_of_one_s_own_is_named_by_its_file_on_every_page() -> None:
    shown = " ".join(advice.after_load(results.result(command=TYPED.format("run"))))
    assert "`make capacity MODEL=two_towers.yaml SLO=p99_ms=30`" in shown
    tuned = replace(results.tuning(), command=TYPED.format("tune"))
    assert "`make capacity MODEL=two_towers.yaml SLO=p99_ms=30`" in " ".join(advice.after_tuning(tuned))


# --- how many requests a percentile rests on ---


@pytest.mark.parametrize(("bound", "needed"), [(Slo(p50_ms=9), 5), (Slo(p95_ms=9), 59), (Slo(p50_ms=5, p99_ms=9), 299),
                                               (Slo(p50_ms=9, goodput=0.9), 29), (None, 299)])  # fmt: skip
def test_a_bound_takes_as_many_requests_as_wilks_says(bound: Slo | None, needed: int) -> None:
    assert slo.least_requests(bound) == needed
    assert slo.too_few("m", bound, needed) == ""
    sentence = slo.too_few("m", bound, needed - 1)
    assert f"rests on {needed - 1} requests; it takes {needed}" in sentence
    assert ("all within the bound" in sentence) == (bound is not None)
    assert slo.too_few("m", bound, 0) == ""


def test_an_slo_met_by_few_requests_says_so_and_how_long_a_run_must_be() -> None:
    few = results.result({"m": model(latencies(20, 5.0), slo=Slo(p99_ms=50), seconds=10.0)})
    few = replace(few, verdict=slo.judge(few.models, valid=True))
    console = "\n".join(text_report.lines(few))
    assert "SLO met, by too few requests to be sure: p99_ms" in console
    assert "The p99 of m rests on 20 requests; it takes 299" in console
    assert verdict_text.headline(few).tone == "unsure"
    shown = read(loadpage.render(few)).visible_text()
    assert "The SLO is met, by too few requests to be sure" in shown
    assert "at most 50 ms wanted; of 20 requests" in shown
    assert "DURATION=165s" in shown  # 299 of two a second, and a tenth to spare
    assert slo.exit_code(few) == slo.MET
    assert slo.judge(few.models, valid=False).note == ""  # such a run says nothing anyway
    enough = results.result({"m": model(latencies(600, 5.0), slo=Slo(p99_ms=50))})
    enough = replace(enough, verdict=slo.judge(enough.models, valid=True))
    assert (
        "too few"
        not in "\n".join(text_report.lines(enough)).lower() + read(loadpage.render(enough)).visible_text().lower()
    )


def test_a_capacity_counts_the_requests_of_all_runs_at_its_rate() -> None:
    few = results.result({"m": model(latencies(100, 5.0), slo=Slo(p99_ms=50), seconds=10.0)})
    rare, often = (replace(few, capacity=Limit(10.0, 9.0, 11.0, runs)) for runs in (2, 3))
    assert "rests on 200 requests" in read(loadpage.render(rare)).visible_text()
    assert "`--duration 17s` of `tritonkit-load capacity`" in " ".join(advice.after_load(rare))
    assert "rests on" not in read(loadpage.render(often)).visible_text()


# --- a search that came to nothing ---


@pytest.mark.parametrize(
    ("failure", "title", "cure"),
    [
        (CheckFailed("none of 2 configurations meets the SLO: p99", tuner.SLO_FIX), "No configuration meets the SLO",
         "`make loadtest MODEL=two_towers.yaml SLO=p99_ms=30 ARRIVALS=poisson:1`"),
        (CheckFailed("it was late", f"{BUSY_FIX}; again"), "No configuration could be measured", "end what else uses"),
        (CheckFailed("it did not load", "correct that"), "A configuration was not served",
         "`make loadtest MODEL=two_towers.yaml SLO=p99_ms=30` shows alone why it is not served"),
    ],
)  # fmt: skip
def test_a_search_without_a_result_has_a_page_that_says_why_and_what_to_do(
    failure: CheckFailed, title: str, cure: str
) -> None:
    trials = results.tuning(8).trials
    failed = replace(
        results.tuning(), command=TYPED.format("tune"), trials=trials, best=None, ratio=None,
        failure=failure.message, cause=outcome._cause(failure),
    )  # fmt: skip
    page = read(tunepage.render(failed))
    assert tunepage.headline(failed).title == title
    assert cure.replace("`", "") in page.visible_text().replace("`", "")
    assert failure.message[1:] in page.visible_text()
    assert sum(row[0] in {str(trial.number) for trial in trials} for row in page.rows if row) >= len(trials) - 1


# --- a comparison of servers ---


def test_peers_are_called_by_their_own_names() -> None:
    assert [row(peer.name, 1.0).key for peer in PEERS] == [peer.key for peer in PEERS]


def compared(rows: Sequence[Row], **changes: Any) -> ComparisonResult:
    ceiling = {"net": 400.0}
    whole = replace(results.comparison(), models={"net": tuple(rows)}, ceiling=ceiling, slo={"net": "p99"}, rounds=3,
                    command="tritonkit-load compare --models net.yaml --slo p99_ms=30")  # fmt: skip
    return replace(whole, **changes)


def row(name: str, capacity: float | None, **changes: Any) -> Row:
    low, high = (None, None) if capacity is None else (capacity - 2, capacity + 2)
    whole = Row(name, "1", False, capacity, low, high, 5.0, 9.0, 100.0, 1.0, 10, f"{name}'s settings")
    return replace(whole, **changes)


OURS = row("tritonkit", 150, ours=True)
BOTH = "MODEL=net.yaml SLO=p99_ms=30"


@pytest.mark.parametrize(
    ("rows", "changes", "expected"),
    [
        ([OURS, row("A", 190)], {}, [
            "A is ahead: it ran with A's settings; tritonkit ran with tritonkit's settings.", f"`make tune {BOTH}`",
            f"`make compare PEERS=a {BOTH}` measures both again",
        ]),
        ([OURS, row("A", 151)], {}, [
            "too close to tell apart after 3 rounds: `tritonkit-load compare --models net.yaml --peers a --rounds 6`",
        ]),
        ([OURS, row("A", 151)], {"rounds": 1}, [f"after 1 round: `make compare PEERS=a {BOTH}`, without QUICK=1"]),
        ([OURS, row("A", None, problem="its server died", fix="read its log")], {}, [
            f"A was given up: read its log. Then `make compare PEERS=a {BOTH}` measures it again.",
        ]),
        ([replace(OURS, late_at=900.0), row("A", 100)], {}, ["could not keep 900 a second for tritonkit"]),
        ([replace(OURS, as_configured=False), row("A", 100)], {}, ["which its recipe does not say: `make tune"]),
        ([OURS, row("A", 100)], {"ceiling": {"net": 160.0}}, ["93.8 % of what the graph alone does"]),
        ([OURS, row("A", 100)], {"partial": True}, ["The comparison was interrupted"]),
        ([OURS, row("A", 100)], {}, []),
    ],
)  # fmt: skip
def test_a_comparison_advises_where_a_figure_calls_for_it_and_nowhere_else(
    rows: list[Row], changes: dict[str, Any], expected: list[str]
) -> None:
    result = compared(rows, **changes)
    *texts, last = after_comparison(result)
    assert len(texts) == bool(expected)
    assert all(part in texts[0] for part in expected)
    assert last.startswith(f"`make capacity {BOTH}`")
    assert "What to do next" in read(comparepage.render(result)).visible_text()


# --- the demo ---


def demo(*steps: tuple[int, float, float, float, float]) -> dict[str, Any]:
    """Steps of users, answers a second, average batch, and ms in the queue and in the model."""
    curve = [
        {"users": users, "requests": 100, "failed": 0, "throughput": rate, "p50_ms": 5.0, "p99_ms": 9.0,
         "average_batch": batch, "queue_ms": queue_ms, "compute_ms": compute_ms, "server_ms": queue_ms + compute_ms + 1}
        for users, rate, batch, queue_ms, compute_ms in steps
    ]  # fmt: skip
    return {"models": {"net": {"curve": curve}}}


def test_the_demo_says_where_more_users_only_wait_and_what_tunes_that() -> None:
    steps = (1, 50, 1, 0.1, 15), (4, 130, 1, 9, 17), (8, 131, 1.0, 45, 17)
    waiting, capacity, own = advice.after_demo(demo(*steps))
    assert waiting == (
        "net: more than 4 users at a time only wait longer (130 answers a second with 4, 131 with 8); with 8 users, the "
        "queue takes 71.4 % of the server's time (45.0 ms, the model 17.0 ms) at an average batch of 1.0. "
        "`make tune MODEL=net` tries `batching.instances`, batches and faster variants."
    )
    assert capacity.startswith("`make capacity MODEL=net`")
    assert "`tritonkit init`" in own


def test_the_demo_says_nothing_of_a_queue_that_is_empty() -> None:
    itself, *_ = advice.after_demo(demo((1, 50, 1, 0.1, 15), (8, 380, 3, 0.5, 15)))
    assert "the model itself takes 90.9 % of the server's time (15.0 of 16.5 ms)" in itself
    assert "make tune" not in itself
    assert len(advice.after_demo(demo((1, 50, 1, 0.1, 1), (8, 380, 3, 0.1, 0.5)))) == 2


# --- a GPU ---


def spread(median: float) -> Spread:
    return Spread(median, median * 0.98, median * 1.02, 3)


def served(instances: int, rate: float, ratio: float, *, whole: bool = False, **load: Any) -> Served:
    usual = {"batch": 48.0, "failed": 0, "server_cores": 1.6, "instance_cores": 0.5 * instances, "caller_cores": 2.3}
    loads = tuple(
        Load(count, spread(rate * count / 256), spread(9), spread(20), **(usual | load))
        for count in ((1, 256) if whole else (256,))
    )
    memory = Memory(instances, GIB // 2, GIB // 8, GIB, (1 + instances * 13 // 8) * GIB)
    return Served(
        "bert_base", "fp16", instances, 1, 15.0, loads, spread(12_000), spread(0.8), spread(ratio), None, memory
    )


def alone(**changes: Any) -> InProcess:
    whole = InProcess(
        "bert_base", "fp16", 128, 1e-3, None, {}, {64: spread(5.0)}, spread(1.01), spread(12_000),
        {"64 x 128": 5.0}, {}, 3.0, True, Memory(1, GIB // 2, GIB // 8, GIB, 0),
    )  # fmt: skip
    return replace(whole, **changes)


def measured(*parts: Served, **changes: Any) -> GpuResult:
    whole = GpuResult("2026-11-29T20:00:00+00:00", "python", {"gpu": "H200", "cores": "16"}, (), (alone(),), parts)
    return replace(whole, **changes)


MIXED = Mixed("bert_base", "fp16", "served", "8 to 256", spread(1.0), spread(1.0), spread(0.61), 1e-3, 1e-2)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (measured(served(4, 10_000, 0.95, whole=True), served(2, 7_000, 0.6)), []),
        (measured(served(4, 10_000, 0.80, whole=True, instance_cores=3.1)),
         ["--only served --models bert_base` measures 1, 2, 4 and 6", "0.80. Each instance uses 0.78 of a core"]),
        (measured(served(4, 10_000, 0.80, whole=True, caller_cores=12.0), served(2, 7_000, 0.6)),
         ["keep `batching.instances: 4`; of those that were measured, 2 serve 7,000, 4 serve 10,000 a second",
          "All 16 cores are busy (15.6): send from another machine"]),
        (measured(served(4, 10_000, 0.80, whole=True, batch=20.0), served(6, 11_000, 0.9)),
         ["`batching.instances: 6` in its recipe. With 256 in flight it serves 11,000 a second, and 4, as built, 10,000",
          "Batches have 20 rows where 64 are prepared for"]),
        (measured(served(4, 10_000, 0.95, whole=True, failed=3)), ["6 requests failed", ]),
        (measured(mixed=(MIXED,)), ["mixed lengths reach 0.61 of equal ones", ]),
        (measured(mixed=(replace(MIXED, error=0.1),)), ["take `pad` out of `shapes`"]),
        (measured(in_process=(alone(graphs=False),)), ["runs without CUDA graphs"]),
        (measured(gate=(GateRow("bert_base", "fp16", "refused", "slower"),)), ["refused by the gate"]),
    ],
)  # fmt: skip
def test_a_gpus_page_says_what_limits_a_model_and_how_many_instances(result: GpuResult, expected: list[str]) -> None:
    *texts, last = after_gpu(result)
    assert len(texts) == len(expected), texts
    assert all(part in text for part, text in zip(expected, texts, strict=True)), texts
    assert "`make tune TARGET=cuda MODEL=my_model.yaml`" in last
    assert "What to do next" in read(gpupage.render(result)).visible_text()


def test_a_gpu_s_page_without_figures_says_how_to_get_them() -> None:
    assert after_gpu(GpuResult("", "", {})) == ("`make bench-gpu` on a machine with a GPU measures it.",)
