"""What a GPU does, as one self-contained HTML page: what is served, what the same graph does alone, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from tritonkit_load.reporting import chart, gpu_advice, page, rows
from tritonkit_load.reporting.axis import Axis, Linear, Log, Whole
from tritonkit_load.reporting.gpu_goals import Goal, built, goals, per_instance, title
from tritonkit_load.reporting.gpu_result import GpuResult, InProcess, Served, Spread
from tritonkit_load.reporting.page import NOTHING, Headline, counted, short

MIB = 2**20
MOST_SIZES = 10  # bars of one chart
SHOWN = 5  # missed goals that are named one by one
TableOf = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def render(result: GpuResult) -> str:
    """The page."""
    sections = [
        {
            "title": title(served.model, served.precision), "facts": _facts(served, result),
            "charts": _charts(served, result),
        }
        for served in built(result)
    ]  # fmt: skip
    return page.render(
        "gpu.html.j2",
        result=result,
        advice=gpu_advice.after_gpu(result),
        headline=headline(result),
        sections=sections,
        memory=_memory_charts(result),
        tables=list(tables(result)),
        goals=goals(result),
    )


def headline(result: GpuResult) -> Headline:
    """How many goals are met, and by how much the others are missed."""
    judged = goals(result)
    missed = [goal for goal in judged if not goal.met]
    if not judged:
        return Headline("unsure", "Nothing is measured yet", ("`make bench-gpu` measures it.",))
    if not missed:
        return Headline("good", f"All {counted(len(judged), 'goal')} are met", (_summary(result),))
    more = len(missed) - SHOWN
    why = [_sentence(goal) for goal in missed[:SHOWN]]
    why += [f"{counted(more, 'more goal is', 'more goals are')} missed."] if more > 0 else []
    return Headline("bad", f"{len(judged) - len(missed)} of {counted(len(judged), 'goal')} are met", tuple(why))


def tables(result: GpuResult) -> Iterator[TableOf]:
    """Every table: its title, its columns, and its rows; the page and the terminal have the same."""
    makers = (_in_process, _served, _instances, _memory, _mixed, _scaling, _gate)
    for maker in makers:
        table = maker(result)
        if table[2]:
            yield table


def figure(value: Spread | None) -> str:
    """A median, and how far its rounds lie apart."""
    if value is None:
        return NOTHING
    if value.rounds < 2:
        return _number(value.median)
    return f"{_number(value.median)} ({_number(value.low)} to {_number(value.high)})"


def _number(value: float) -> str:
    """As a reader needs it; ratios near 1 with three digits after the point."""
    return f"{value:.3f}" if 0.2 < abs(value) < 2 else short(value)


def _sentence(goal: Goal) -> str:
    return f"{goal.subject}: {goal.what} {goal.figure}, the goal is {goal.bound}."


def _summary(result: GpuResult) -> str:
    parts = [f"{title(served.model, served.precision)} {short(_best(served))}" for served in built(result)]
    return f"Samples a second, served one a request: {', '.join(parts)}." if parts else "In process only so far."


def _best(served: Served) -> float:
    return max(load.rate.median for load in served.loads)


def _in_process(result: GpuResult) -> TableOf:
    batches = sorted({batch for graph in result.in_process for batch in (*graph.plain_ms, *graph.prepared_ms)})
    columns = (
        "model", "sizes change", *(f"plain, {batch}" for batch in batches),
        *(f"prepared, {batch}" for batch in batches), "alternating / fixed", f"samples/s at {batches[-1]}",
        "error", "prepared in",
    ) if batches else ()  # fmt: skip
    body = [
        (
            _graph(graph), figure(graph.changing_ms), *(figure(graph.plain_ms.get(batch)) for batch in batches),
            *(figure(graph.prepared_ms.get(batch)) for batch in batches), figure(graph.alternating),
            figure(graph.per_s), f"{graph.error:.0e}", f"{graph.prepare_s:.1f} s, {len(graph.size_ms)} sizes",
        )
        for graph in result.in_process
    ]  # fmt: skip
    return "In process, ms a batch with copies from and to the host: median (lowest to highest round)", columns, body


def _graph(graph: InProcess) -> str:
    name = title(graph.model, graph.precision) + (f", {graph.tokens} tokens" if graph.tokens else "")
    return name if graph.graphs else f"{name}, without CUDA graphs"


def _served(result: GpuResult) -> TableOf:
    columns = (
        "model", "in flight", "requests/s", "p50 ms", "p99 ms", "batch", "failed", "cores: server", "instances",
        "callers",
    )  # fmt: skip
    body = [
        (
            f"{title(served.model, served.precision)}, {counted(served.instances, 'instance')}", str(load.in_flight),
            figure(load.rate), figure(load.p50_ms), figure(load.p99_ms), f"{load.batch:.1f}", f"{load.failed:,}",
            f"{load.server_cores:.1f}", f"{load.instance_cores:.1f}", f"{load.caller_cores:.1f}",
        )
        for served in result.served
        for load in served.loads
    ]  # fmt: skip
    return "Served by Triton, one sample a request over gRPC", columns, body


def _instances(result: GpuResult) -> TableOf:
    columns = ("model", "instances", "best requests/s", "in process/s", "served / in process", "p50 alone above, ms",
               "ready in s")  # fmt: skip
    body = [
        (
            title(served.model, served.precision), str(served.instances), short(_best(served)),
            figure(served.alone_per_s), figure(served.ratio), figure(served.above_ms), f"{served.ready_s:.1f}",
        )
        for served in result.served
    ]  # fmt: skip
    return "Served over in process, by instances, in interleaved rounds", columns, body


def _memory(result: GpuResult) -> TableOf:
    columns = ("model", "context", "weights", "sizes", "reported", "device says", "reported / device")
    body = []
    for graph in result.in_process:
        memory, name = graph.memory, f"{title(graph.model, graph.precision)}, in process"
        parts = (memory.context, memory.session, memory.sizes, memory.reported, memory.device or None)
        body.append((name, *_mib(*parts), _ratio(memory.reported, memory.device)))
    for served in built(result):
        memory, name = served.memory, f"{title(served.model, served.precision)}, an instance"
        device, reported = per_instance(result, served), memory.reported / memory.instances
        body.append(
            (name, *_mib(memory.context, memory.session, memory.sizes, reported, device), _ratio(reported, device))
        )
    return "Memory of the GPU, MiB", columns, body


def _mib(*parts: float | None) -> tuple[str, ...]:
    return tuple(NOTHING if part is None else f"{part / MIB:,.0f}" for part in parts)


def _ratio(reported: float, device: float | None) -> str:
    return f"{reported / device:.3f}" if device else NOTHING


def _mixed(result: GpuResult) -> TableOf:
    columns = ("model", "where", "lengths", "tokens/s, mixed", "tokens/s, equal", "mixed / equal", "error", "allowed")
    body = [
        (
            title(mixed.model, mixed.precision), mixed.where, mixed.lengths, figure(mixed.mixed_per_s),
            figure(mixed.equal_per_s), figure(mixed.ratio), f"{mixed.error:.0e}", f"{mixed.tolerance:.0e}",
        )
        for mixed in result.mixed
    ]  # fmt: skip
    return "Texts of mixed lengths", columns, body


def _scaling(result: GpuResult) -> TableOf:
    columns = ("model", "GPUs", "instances each", "in flight", "one GPU, requests/s", "all of them", "ratio")
    body = [
        (
            title(scaling.model, scaling.precision), str(scaling.gpus), str(scaling.instances), str(scaling.in_flight),
            figure(scaling.one), figure(scaling.all), figure(scaling.ratio),
        )
        for scaling in result.scaling
    ]  # fmt: skip
    return "Several GPUs", columns, body


def _gate(result: GpuResult) -> TableOf:
    body = [(title(row.model, row.precision), row.verdict, row.why) for row in result.gate]
    return "What the gate says of variants", ("variant", "verdict", "why"), body


def _facts(served: Served, result: GpuResult) -> str:
    """A sentence over a model's charts."""
    words = (
        f"{counted(served.instances, 'instance')}, ready after {served.ready_s:.0f} s. At most {short(_best(served))} "
        f"requests a second, {served.ratio.median:.2f} of what the graph does in this process in full batches."
    )
    if served.above_ms:
        words += f" A lone request takes {served.above_ms.median:.2f} ms more than in process."
    sizes = next((len(alone.size_ms) for alone in result.in_process if _same(alone, served)), 0)
    return words + (f" {sizes} prepared sizes." if sizes else "")


def _same(part: Any, other: Any) -> bool:
    return (part.model, part.precision) == (other.model, other.precision)


def _charts(served: Served, result: GpuResult) -> list[tuple[str, str, Markup]]:
    """Title, key and drawing of each."""
    name = title(served.model, served.precision)
    charts = [
        ("Throughput", "requests a second by requests in flight", _throughput(name, served)),
        ("Latency", "", _latency(name, served)),
    ]
    counts = sorted((other for other in result.served if _same(served, other)), key=lambda other: other.instances)
    if len(counts) > 1:
        most = max(load.in_flight for load in served.loads)
        charts.append(("Instances", f"requests a second with {most} in flight", _by_instances(name, counts, most)))
    return [(heading, words, Markup(drawing)) for heading, words, drawing in charts]


def _memory_charts(result: GpuResult) -> list[tuple[str, str, Markup]]:
    """Title, what it shows, and drawing, for every graph whose memory was measured."""
    charts = []
    for graph in result.in_process:
        if any(graph.size_bytes.values()):
            name = title(graph.model, graph.precision)
            charts.append((name, _sizes_words(graph), Markup(_by_size(name, graph))))
    return charts


def _throughput(name: str, served: Served) -> str:
    points = [(float(load.in_flight), load.rate.median) for load in served.loads]
    words = "; ".join(f"{x:g} in flight: {short(y)} a second" for x, y in points)
    level = chart.Level("limit", served.alone_per_s.median, f"in process {short(served.alone_per_s.median)}")
    return chart.draw(
        f"{name}: throughput", words, Axis("in flight, log scale", Log), Axis("requests per second", Linear),
        [chart.Line("measured", points, [short(y) for _, y in points], above=False)], level=level,
    )  # fmt: skip


def _latency(name: str, served: Served) -> str:
    lines = {
        "p99": [(float(load.in_flight), load.p99_ms.median) for load in served.loads],
        "p50": [(float(load.in_flight), load.p50_ms.median) for load in served.loads],
    }
    words = "; ".join(f"{style} with {x:g} in flight: {short(y)} ms" for style, of in lines.items() for x, y in of)
    return chart.draw(
        f"{name}: latency", words, Axis("in flight, log scale", Log),
        Axis("ms, log scale", Log),
        [chart.Line(style, of, [short(y) for _, y in of], above=style == "p99") for style, of in lines.items()],
    )  # fmt: skip


def _by_instances(name: str, counts: Sequence[Served], most: int) -> str:
    points = [
        (float(served.instances), load.rate.median)
        for served in counts
        for load in served.loads
        if load.in_flight == most
    ]
    words = "; ".join(f"{x:g} instances: {short(y)} a second" for x, y in points)
    alone = counts[0].alone_per_s.median
    return chart.draw(
        f"{name}: instances", words, Axis("instances", Whole), Axis("requests per second", Linear),
        [chart.Line("measured", points, [short(y) for _, y in points], above=False)],
        level=chart.Level("limit", alone, f"in process {short(alone)}"),
    )  # fmt: skip


def _sizes_words(alone: InProcess) -> str:
    sizes = counted(len(alone.size_bytes), "size")
    return f"MiB that preparing took; the largest of {sizes}, which share what they can"


def _by_size(name: str, alone: InProcess) -> str:
    largest = sorted(alone.size_bytes.items(), key=lambda item: -item[1])[:MOST_SIZES]
    bars = [
        rows.Row(f"batch {size}", f"{taken / MIB:,.0f} MiB, {short(alone.size_ms.get(size))} ms",
                 [("ours", taken / MIB)]) for size, taken in largest
    ]  # fmt: skip
    return rows.draw(f"{name}: memory by size", "; ".join(f"{bar.name}: {bar.figure}" for bar in bars), bars)
