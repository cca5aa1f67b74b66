"""``tritonkit advise``: which GPU, in which precision, how many, at what cost, and why."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tritonkit.cli import advise_fleet, advise_language, advise_recipe
from tritonkit.cli.output import Verbs, make_table, out, print_json
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from tritonkit.advisor.advise import Advice, Candidate, Options
    from tritonkit.advisor.graph_cost import Cost

ENGINES = ("onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
_ALL_ENGINES = (*ENGINES, *advise_language.ENGINES)
_ALL_PRECISIONS = tuple(dict.fromkeys((*PRECISIONS, *advise_language.PRECISIONS)))
_WIDTH = 124  # of the table
_PLOT = (100, 22)  # columns at most, and lines
_MAX_BATCH = 64  # where no recipe says one


def add(verbs: Verbs, _common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``advise``."""
    verb = verbs.add_parser(
        "advise", parents=[report], help="which GPU, precision and how many, for a rate and a promise",
        examples=[
            "tritonkit advise my_model.yaml --rps 5000 --p99-ms 20",
            "tritonkit advise model.onnx --shape sequence=128 --gpu l4,a10g,h100 --rps 2000 --p99-ms 10",
            "tritonkit advise ./llama-3-8b --context 8192 --concurrency 64 --ttft-ms 500 --itl-ms 40",
            "tritonkit advise fleet models.yaml --values fleet.yaml",
        ],
    )  # fmt: skip
    verb.add_argument("model", type=Path, metavar="MODEL", help="a recipe, model.onnx, or a Hugging Face directory")
    verb.add_argument("--rps", type=float, metavar="N", help="requests a second, of one sample each")
    verb.add_argument("--p99-ms", type=float, metavar="MS", help="what 99 %% stay within; default: the recipe's slo")
    verb.add_argument(
        "--gpu", default="", metavar="GPU,GPU", help="which to consider, cpu too; default: the recipe's, or all GPUs"
    )
    verb.add_argument("--engine", type=_words(_ALL_ENGINES), metavar="E,E", help=f"of {', '.join(_ALL_ENGINES)}")
    verb.add_argument(
        "--precision", type=_words(_ALL_PRECISIONS), metavar="P,P", help="default: the recipe's, or the graph's"
    )
    verb.add_argument(
        "--shape", type=_size, action="append", default=[], metavar="NAME=SIZE", help="of a graph's moving dimension"
    )
    verb.add_argument("--max-batch", type=int, metavar="N", help=f"default: the recipe's, or {_MAX_BATCH}")
    verb.add_argument("--instances", type=int, metavar="N", help="of the model on a GPU; default: 4")
    verb.add_argument("--utilization", type=float, metavar="SHARE", help="of a replica's rate, at most; default: 0.8")
    verb.add_argument(
        "--price", type=_price, action="append", default=[], metavar="GPU=USD", help="of an hour of one GPU"
    )
    verb.add_argument("--all", action="store_true", help="list every engine and precision, not the best of each GPU")
    verb.add_argument("--plot", action="store_true", help="draw the layers under the best GPU's roofline")
    verb.add_argument("--html", type=Path, metavar="FILE", help="write a page with the table and a roofline plot")
    verb.add_argument("--values", type=Path, metavar="FILE", help="write values for the chart, for the best candidate")
    verb.add_argument("--recipe", action="store_true", help="write the advised batching into the recipe")
    advise_fleet.add_arguments(verb)
    advise_language.add_arguments(verb)
    verb.set_defaults(command=_advise)


def _advise(options: argparse.Namespace) -> int:
    if advise_fleet.is_fleet(options):
        return advise_fleet.run(options)
    if _is_language(options.model):
        return _language(options)
    from tritonkit.advisor import advise

    _check_options(options)
    if options.recipe:
        advise_recipe.check(options.model)
    subject = _subject(options)
    advice = advise.advise(subject.batches, subject.options)
    if options.html:
        from tritonkit import atomic
        from tritonkit.advisor import page

        text = page.render(subject.name, subject.batches, subject.options, advice)
        atomic.write(options.html, text.encode())
    if options.values:
        _write_values(options.values, subject.name, advice)
    written = advise_recipe.write(options.model, subject.batches, subject.options, advice) if options.recipe else ""
    if options.json:
        print_json({"model": subject.name, **asdict(advice)})
    else:
        _print(subject, advice, all_of_them=options.all)
        if options.plot:
            _plot(subject, advice)
        if written:
            out.print(f"\n{written}", markup=False)
    return 0 if any(candidate.verdict == "best" for candidate in advice.candidates) else 1


class _Subject:
    """A model with the sizes, batches and options that it is considered with."""

    def __init__(self, name: str, batches: Mapping[int, Cost], sizes: Mapping[str, int], options: Options) -> None:
        self.name, self.batches, self.sizes, self.options = name, batches, sizes, options


def _check_options(options: argparse.Namespace) -> None:
    """Refuse what only language models have."""
    if wrong := [name for name in options.engine or () if name not in ENGINES]:
        raise InputError(f"--engine {wrong[0]} runs no graph", f"one of {', '.join(ENGINES)}")
    if wrong := [name for name in options.precision or () if name not in PRECISIONS]:
        raise InputError(f"--precision {wrong[0]} is of language models", f"one of {', '.join(PRECISIONS)}")
    if given := advise_language.given(options):
        raise InputError(
            f"{given[0]} is for language models, and {options.model} is none",
            "name a Hugging Face directory, or leave the option out; a graph's promise is --p99-ms",
        )


def _subject(arguments: argparse.Namespace) -> _Subject:
    from tritonkit import gpus
    from tritonkit.advisor import advise, cpu, graph_cost, graph_source, serving

    if arguments.model.suffix in {".yaml", ".yml"}:
        name, path, defaults, sizes = graph_source.from_recipe(arguments.model)
    elif arguments.model.suffix == ".onnx":
        name, path, defaults, sizes = arguments.model.stem, arguments.model, {}, {}
    else:
        raise InputError(
            f"{arguments.model} is no recipe, no .onnx file, and no directory with a config.json",
            "name a recipe (.yaml), a graph (.onnx) or a Hugging Face directory",
        )
    model = graph_cost.load(path)
    sizes = {**sizes, **dict(arguments.shape)}
    if "precisions" not in defaults:
        defaults["precisions"] = graph_cost.precisions(model)
    words = [word.strip() for word in arguments.gpu.split(",") if word.strip()]
    members = [gpu for word in words if word not in {"all", cpu.KEY} for gpu in gpus.members(word)]
    defaults["cpu"] = not {"all", cpu.KEY}.isdisjoint(words)
    if words:
        defaults["gpus"] = gpus.all() if "all" in words else tuple(dict.fromkeys(members))
    changed = {
        "rps": arguments.rps, "p99_ms": arguments.p99_ms, "engines": arguments.engine,
        "precisions": arguments.precision, "max_batch": arguments.max_batch,
        "instances": arguments.instances, "utilization": arguments.utilization,
    }  # fmt: skip
    prices = {key if key == cpu.KEY else gpus.get(key).key: price for key, price in arguments.price}
    merged = {**defaults, **{key: value for key, value in changed.items() if value is not None}, "prices": prices}
    options = advise.Options(**merged)
    batch = graph_cost.batch_symbol(model)
    batches = (
        {size: graph_cost.measure(model, {**sizes, batch: size}) for size in serving.batch_sizes(options.max_batch)}
        if batch else {1: graph_cost.measure(model, sizes)}
    )  # fmt: skip
    return _Subject(name, batches, sizes, options)


def _is_language(model: Path) -> bool:
    return (model.is_dir() and (model / "config.json").is_file()) or model.name == "config.json"


def _language(options: argparse.Namespace) -> int:
    foreign = {"--shape": options.shape, "--p99-ms": options.p99_ms, "--max-batch": options.max_batch,
               "--instances": options.instances, "--utilization": options.utilization, "--html": options.html,
               "--plot": options.plot or None, "--values": options.values,
               "--recipe": options.recipe or None}  # fmt: skip
    if given := [name for name, value in foreign.items() if value not in (None, [])]:
        raise InputError(
            f"{given[0]} is for graphs, and {options.model} is a language model",
            "its promises are --ttft-ms and --itl-ms; its other options: tritonkit advise --help",
        )
    return advise_language.run(options)


def _write_values(path: Path, model: str, advice: Advice) -> None:
    from tritonkit import atomic, gpus
    from tritonkit.advisor import cpu

    best = next((candidate for candidate in advice.candidates if candidate.verdict == "best"), None)
    if best is None:
        raise InputError("no candidate keeps the promise: there is nothing to write to --values", "see the reasons")
    engine = "cpu" if best.gpu == cpu.KEY else "tensorrt" if best.engine == "tensorrt" else "cuda"
    lines = [
        f"# `tritonkit advise`: {model} in {best.precision}, built with `tritonkit build --target {engine}`;",
        f"# {best.reasons[-1]}." if not best.measured else f"# one pod holds {best.holds_rps:.0f} requests a second.",
        f"replicas: {best.replicas or 1}",
        "accelerator:",
        "  kind: cpu" if best.gpu == cpu.KEY else f"  products: [{gpus.get(best.gpu).node_label}]",
    ]
    atomic.write(path, ("\n".join(lines) + "\n").encode())


def _print(subject: _Subject, advice: Advice, *, all_of_them: bool) -> None:
    from tritonkit.advisor import advise

    listed = advice.candidates if all_of_them else advise.cheapest(advice)
    # A terminal that is narrower wraps whole lines, which can be read; rich would wrap inside of fourteen columns.
    Console(highlight=False, width=max(out.width, _WIDTH)).print(_table(listed, subject.options))
    best = next((candidate for candidate in advice.candidates if candidate.verdict == "best"), None)
    if best:
        out.print(f"\n{best.gpu}, {best.engine}, {best.precision}:", markup=False)
        for reason in best.reasons:
            out.print(f"  {reason}", markup=False)
    if advice.impossible:
        out.print(f"\n{advice.impossible}", markup=False)
    out.print()
    sizes = ", ".join(f"{name} {size}" for name, size in subject.sizes.items())
    for note in (*([f"sizes: {sizes}"] if sizes else []), *advice.notes):
        out.print(note, markup=False)


def _plot(subject: _Subject, advice: Advice) -> None:
    from tritonkit.advisor import roofline

    candidate = roofline.drawn(advice)
    if candidate is None:
        out.print("\nnothing is drawn: no candidate has a roofline")
        return
    batch = max(subject.batches)
    plot = roofline.of(subject.batches[batch], candidate, batch)
    text = roofline.in_letters(plot, min(out.width, _PLOT[0]), _PLOT[1])
    out.print(f"\n{text}", markup=False, soft_wrap=True)


def _table(candidates: Sequence[Candidate], options: Options) -> Table:
    table = make_table(
        "GPU", "engine", "precision", "GiB", "alone ms", "p99 ms", "bound", "batch", "a GPU/s",
        "GPUs" if options.rps else "holds/s", "busy", "$/h", "$/million", "verdict",
    )  # fmt: skip
    for candidate in candidates:
        table.add_row(
            candidate.gpu + ("" if candidate.measured else "*"), candidate.engine, candidate.precision,
            f"{candidate.memory_gib:.1f}", _number(candidate.lone_ms, ".2f"), _number(candidate.p99_ms, ".1f"),
            candidate.bound or "-", _number(candidate.batch, ".0f"), _number(candidate.most_rps, ",.0f"),
            _number(candidate.replicas, "d") if options.rps else _number(candidate.holds_rps, ",.0f"),
            _number(candidate.utilization, ".0%"), _number(candidate.usd_per_hour, ",.2f"),
            _number(candidate.usd_per_million, ".2f"),
            candidate.verdict,
        )  # fmt: skip
    table.caption = "* no measured row of this GPU with this engine: carried over by published peaks"
    table.caption_justify = "left"
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _words(known: Sequence[str]) -> Any:
    def words(text: str) -> tuple[str, ...]:
        from tritonkit.cli.arguments import closest, did_you_mean

        names = tuple(word for word in text.split(",") if word)
        for word in names:
            if word not in known:
                near = did_you_mean(filter(None, [closest(word, known)]))
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}{near}")
        return names

    return words


def _size(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name or not size.isdecimal() or int(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SIZE with a size of 1 or more")
    return name, int(size)


def _price(text: str) -> tuple[str, float]:
    name, _, price = text.partition("=")
    try:
        return name, float(price)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not GPU=USD") from None
