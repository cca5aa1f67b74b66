"""The page of `make bench-gpu` from a stored result, whose figures are made up: goals first, then every figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from pages import Layout, laid_out, read, references
from pydantic import ValidationError
from results import HOSTILE

from tritonkit_load.benchmarks import bench_gpu
from tritonkit_load.benchmarks.gpu import device, inprocess, models
from tritonkit_load.benchmarks.gpu import served as serving
from tritonkit_load.benchmarks.gpu.served import Plan
from tritonkit_load.reporting import gpu_goals, gpupage
from tritonkit_load.reporting.gpu_result import (
    GateRow,
    GpuResult,
    InProcess,
    Load,
    Memory,
    Mixed,
    Scaling,
    Served,
    Spread,
)

MIB = 2**20
WIDTHS = (390, 1280)
SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def spread(median: float, part: float = 0.02) -> Spread:
    return Spread(median, median * (1 - part), median * (1 + part), 3)


def in_process(model: str, precision: str, tokens: int = 0, per_s: float = 9000.0) -> InProcess:
    lengths = (16, 64, 128, 256) if tokens else (0,)
    names = [f"{batch} x {length}" if length else str(batch) for length in lengths for batch in SIZES]
    return InProcess(
        model=model, precision=precision, tokens=tokens, error=2.3e-3, changing_ms=Spread(187.0, 150.0, 210.0, 6),
        plain_ms={1: spread(1.2), 8: spread(1.7), 64: spread(7.7)},
        prepared_ms={1: spread(0.5), 8: spread(1.3), 64: spread(64_000 / per_s)}, alternating=spread(1.01, 0.01),
        per_s=spread(per_s), size_ms={name: 0.4 + index / 10 for index, name in enumerate(names)},
        size_bytes={name: (1 + index) * 9 * MIB for index, name in enumerate(names)}, prepare_s=3.4, graphs=True,
        memory=Memory(1, 520 * MIB, 106 * MIB, 1432 * MIB, 2100 * MIB),
    )  # fmt: skip


def served(model: str, precision: str, instances: int, counts: tuple[int, ...], per_s: float = 9000.0) -> Served:
    loads = tuple(
        Load(
            count, spread(min(600.0 * count**0.8, 0.93 * per_s * min(instances, 4) / 4)), spread(1.3 + count / 8),
            spread(2.1 + count / 4), max(1.0, count / 8), 0, 3.2, 3.9, 2.8,
        )
        for count in counts
    )  # fmt: skip
    memory = Memory(instances, 520 * MIB, 106 * MIB, 1432 * MIB, (560 + 2090 * instances) * MIB)
    best = max(load.rate.median for load in loads)
    return Served(
        model, precision, instances, 1, 21.0, loads, spread(per_s), spread(0.5), spread(best / per_s),
        spread(0.7) if 1 in counts else None, memory,
    )  # fmt: skip


def result() -> GpuResult:
    models = (("bert_base", "fp16", 128), ("efficientnet_lite0", "fp32", 0), ("resnet50", "fp16", 0))
    alone = [in_process(*row) for row in models] + [in_process("resnet50", "fp32", per_s=7000.0)]
    behind = [
        served(name, precision, count, (1, 8, 64, 256) if count == 4 else (256,))
        for name, precision, _ in models
        for count in (1, 2, 4, 6)
    ]
    mixed = tuple(
        Mixed("bert_base", "fp16", where, "8 to 256 tokens alike, against 128", spread(900_000.0), spread(1_100_000.0),
              spread(0.82), 2e-3, 1e-2)
        for where in ("in process", "served")
    )  # fmt: skip
    scaling = (Scaling("resnet50", "fp16", 4, 2, 512, spread(9_000.0), spread(17_500.0), spread(1.94)),)
    gate = (GateRow("bert_base", "fp16", "accepted", "1.85x faster"), GateRow("resnet50", "fp16", "accepted", "1.48x"))
    facts = {"gpu": "NVIDIA H200", "cores": "16", "driver": "580.159", "cpu": "made up", "python": "3.12"}
    return GpuResult(
        "2026-11-29T20:00:00+00:00", "python -m tritonkit_load.benchmarks.bench_gpu --seconds 2", facts, gate, tuple(alone),
        tuple(behind), mixed, scaling,
    )  # fmt: skip


WHOLE = result()
MISSED = replace(WHOLE, in_process=tuple(replace(graph, alternating=spread(150.0)) for graph in WHOLE.in_process))


def page_text(whole: GpuResult) -> str:
    return read(gpupage.render(whole)).visible_text()


def test_goals_come_first_and_what_is_missed_is_named_with_its_figure() -> None:
    assert gpupage.headline(WHOLE).tone == "good"
    headline = gpupage.headline(MISSED)
    assert headline.tone == "bad"
    assert "alternating sizes over fixed ones 150, the goal is at most 1.05" in headline.why[0]
    text = page_text(MISSED)
    assert text.index("goals are met") < text.index("Goals") < text.index("How it was run")
    assert gpupage.headline(GpuResult("", "", {})).tone == "unsure"


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"ratio": spread(0.89)}, "served over in process"),
        ({"above_ms": spread(0.81)}, "a lone request above in process, ms"),
    ],
)
def test_each_served_figure_is_judged(changed: dict[str, Spread], what: str) -> None:
    behind = tuple(replace(figures, **changed) for figures in WHOLE.served)  # type: ignore[arg-type]
    missed = [goal.what for goal in gpu_goals.goals(replace(WHOLE, served=behind)) if not goal.met]
    assert set(missed) == {what}


def test_padded_answers_scaling_gate_and_memory_are_judged() -> None:
    changed = replace(
        WHOLE,
        mixed=(replace(WHOLE.mixed[0], error=0.02),),
        scaling=(replace(WHOLE.scaling[0], ratio=spread(1.5)),),
        gate=(GateRow("resnet50", "fp16", "refused", "slower"),),
        in_process=tuple(
            replace(graph, memory=replace(graph.memory, device=3000 * MIB, sizes=2000 * MIB))
            for graph in WHOLE.in_process
        ),
    )
    missed = {goal.what for goal in gpu_goals.goals(changed) if not goal.met}
    assert missed == {
        "error of padded answers", "two GPUs over one", "verdict of the gate", "reported memory over the device's",
        "memory of an instance, GiB",
    }  # fmt: skip


def test_memory_of_an_instance_is_the_slope_over_instances() -> None:
    figures = WHOLE.served[0]
    assert gpu_goals.per_instance(WHOLE, figures) == 2090 * MIB
    assert gpu_goals.per_instance(replace(WHOLE, served=(figures,)), figures) is None


def test_every_figure_is_in_a_table_with_its_spread_and_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = read(gpupage.render(WHOLE)).rows
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ["ResNet-50 fp32", "187"] in [row[:2] for row in cells]
    assert ["ResNet-50 fp16, 4 instances", "256", "8,370", "33.3"] in [row[:4] for row in cells]
    assert "187 150 to 210" in page_text(WHOLE)
    assert "8,370 8,203 to 8,537" in page_text(WHOLE)
    assert [row[-1] for row in rows if row[0] == "BERT-base fp16, an instance"] == ["0.985"]
    (tmp_path / "result.json").write_text(json.dumps(WHOLE.to_json()), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--only", "page", "--reports", str(tmp_path)])
    assert bench_gpu.main() == 0
    printed = capsys.readouterr().out
    assert "8,370 (8,203 to 8,537)" in printed
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == gpupage.render(WHOLE)


def test_each_part_is_written_at_once_and_the_built_instances_come_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (bert,) = models.recipes(["bert_base"])
    order: list[str] = []
    model = models.Model(bert, "fp16", tmp_path)

    @contextmanager
    def running(_model: object, count: int, *_: object, **_options: object) -> Iterator[int]:
        order.append(f"{count} instances")
        yield count

    def measure(count: int, _prepared: object, plan: Plan, *_: object) -> Served:
        stored = GpuResult.from_json(json.loads((tmp_path / "result.json").read_text(encoding="utf-8")))
        order.append(f"{len(stored.in_process)} and {len(stored.served)} before")
        if count == 2:
            raise KeyboardInterrupt
        return served("bert_base", "fp16", count, plan.in_flight)

    monkeypatch.setattr(models, "build", lambda *_: ([model], [WHOLE.gate[0]]))
    monkeypatch.setattr(models, "work_folder", lambda: tmp_path / "work")
    monkeypatch.setattr(inprocess, "opened", lambda _: nullcontext())
    monkeypatch.setattr(inprocess, "measure", lambda *_: WHOLE.in_process[0])
    monkeypatch.setattr(inprocess, "mixed", lambda *_: WHOLE.mixed[0])
    monkeypatch.setattr(serving, "running", running)
    monkeypatch.setattr(serving, "measure", measure)
    monkeypatch.setattr(serving, "mixed", lambda *_: WHOLE.mixed[1])
    monkeypatch.setattr(device, "names", lambda: ["NVIDIA H200"])
    monkeypatch.setattr(device, "driver", lambda: "580.159")
    arguments = ["--models", "bert_base", "--instances", "1,2,4", "--reports", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *arguments])
    assert bench_gpu.main() == bench_gpu.INTERRUPTED
    assert order == ["4 instances", "1 and 0 before", "1 instances", "1 and 1 before", "2 instances", "1 and 2 before"]
    stored = GpuResult.from_json(json.loads((tmp_path / "result.json").read_text(encoding="utf-8")))
    assert [figures.instances for figures in stored.served] == [1, 4]
    assert [[load.in_flight for load in figures.loads] for figures in stored.served] == [[256], [1, 8, 64, 256]]
    assert [figures.where for figures in stored.mixed] == ["in process", "served"]
    assert stored.environment["driver"] == "580.159"
    assert "BERT-base fp16, 4 instances: served over in process 0.930, at least 0.9" in capsys.readouterr().err


def test_parts_of_separate_calls_are_put_together_and_the_later_one_counts() -> None:
    first = replace(WHOLE, in_process=WHOLE.in_process[:2], environment={"gpu": "A", "cores": "16"})
    faster = replace(WHOLE.in_process[1], per_s=spread(10_000.0))
    later = GpuResult("later", "again", {"gpu": "B"}, in_process=(faster, WHOLE.in_process[2]))
    both = later.merged(first)
    assert both.created == "later"
    assert both.environment == {"gpu": "B", "cores": "16"}
    assert [graph.per_s.median for graph in both.in_process] == [9000.0, 10_000.0, 9000.0]
    in_order = sorted(WHOLE.served, key=lambda served: (served.model, served.precision, served.instances))
    assert both.served == tuple(in_order)


def test_a_result_survives_json_and_a_bad_one_is_refused_by_field() -> None:
    data = json.loads(json.dumps(WHOLE.to_json()))
    assert GpuResult.from_json(data) == WHOLE
    data["served"][0]["ready_s"] = "soon"
    with pytest.raises(ValidationError, match=r"served\.0\.ready_s"):
        GpuResult.from_json(data)


def test_hostile_names_stay_text_and_nothing_is_fetched() -> None:
    bad = replace(WHOLE.served[0], model=HOSTILE, precision=HOSTILE)
    text = gpupage.render(
        replace(WHOLE, served=(bad,), gate=(GateRow(HOSTILE, HOSTILE, HOSTILE, HOSTILE),), command=HOSTILE)
    )
    assert "img" not in [tag for tag, _ in read(text).tags]
    assert references(text) == []


@pytest.fixture(scope="module")
def layouts(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Layout]:
    pages = {"whole": gpupage.render(WHOLE), "missed": gpupage.render(MISSED)}
    pages["nothing"] = gpupage.render(GpuResult("", "", {}))
    return laid_out(chromium, tmp_path_factory.mktemp("gpu"), pages, WIDTHS)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["whole", "missed", "nothing"])
def test_page_fits_a_phone_and_a_desktop(layouts: dict[tuple[str, int], Layout], name: str, width: int) -> None:
    layout = layouts[name, width]
    assert layout.scroll <= width, "the page scrolls sideways"
    assert layout.overlaps == []
    assert layout.letters >= 11, "a chart's text is too small"
    assert layout.faint == []
    assert layout.fetched == []
    if name == "whole":
        assert layout.columns == (3 if width == 1280 else 1)
