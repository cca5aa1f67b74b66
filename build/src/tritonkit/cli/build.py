"""``tritonkit build``: recipes become a model repository; ``init`` writes a first recipe."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonkit.cli import forests, language_models
from tritonkit.cli.output import RECIPES, Verbs, make_table, out, print_json, write_recipe
from tritonkit.errors import InputError, OutputError
from tritonkit.recipe import MOST_BATCH, PRECISIONS, LanguageRecipe, Recipe

if TYPE_CHECKING:
    from tritonkit.built_model import BuiltModel
    from tritonkit.pipeline import Built

_REPOSITORY = Path("model_repository")  # where every verb looks that is told no other


def add(verbs: Verbs, common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``build`` and ``init``."""
    build = verbs.add_parser(
        "build", parents=[report], help="export, check and lay out models",
        examples=["tritonkit build my_model.yaml", "tritonkit build my_model.yaml --precision fp32,int8 --target cuda"],
    )  # fmt: skip
    build.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE", help="recipe files")
    build.add_argument("--all", action="store_true", help=f"every recipe in {RECIPES}")
    build.add_argument("--repository", type=Path, default=_REPOSITORY, help="default: %(default)s")
    build.add_argument(
        "--target", choices=["cpu", "cuda", "tensorrt"], default="cpu", help="where it runs; default: %(default)s"
    )
    build.add_argument(
        "--precision", type=_precisions, metavar="P,P", help="variants to consider, instead of the recipe's own"
    )
    build.add_argument("--all-variants", action="store_true", help=f"consider {', '.join(PRECISIONS)}")
    build.add_argument("--force", choices=PRECISIONS, help="ship this variant whatever the gate says")
    build.add_argument(
        "--fallback",
        action="store_true",
        help="tensorrt: also lay out fp32 on onnxruntime, for nodes that no engine fits",
    )
    build.add_argument(
        "--mounted-at", default="/models", metavar="PATH",
        help="language models: where the server will have the repository; default: %(default)s",
    )  # fmt: skip
    build.add_argument("--overwrite", action="store_true", help="replace configurations edited by hand, and links")
    build.set_defaults(command=_build)

    init = verbs.add_parser(
        "init", parents=[common], help="write a first recipe by looking at a model",
        examples=[
            "tritonkit init model.onnx", "tritonkit init churn.ubj",
            "tritonkit init my_model.py:load --input picture:fp32:3,224,224",
        ],
    )  # fmt: skip
    init.add_argument(
        "model",
        help="model.onnx, a forest's file, module:function, file.py:function, or a Hugging Face directory",
    )
    init.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:DTYPE:DIMS",
        help="what a module takes, or a graph less of",
    )
    init.add_argument(
        "--max-batch-size", type=int, default=16, metavar="N", help="0: never batched; default: %(default)s"
    )
    init.add_argument("--output", "-o", type=Path, help="default: NAME.yaml")
    init.set_defaults(command=_init)


def _build(options: argparse.Namespace) -> int:
    from tritonkit import pipeline, recipe

    if options.all == bool(options.recipes):
        example = f"{RECIPES}/NAME.yaml" if RECIPES.is_dir() else "my_model.yaml; `tritonkit init` writes a recipe"
        raise InputError("name recipe files, or --all", f"tritonkit build {example}")
    paths = sorted(RECIPES.glob("*.yaml")) if options.all else options.recipes
    if not paths:
        raise InputError(
            f"there are no recipes in {RECIPES.absolute()}", "run this where build/recipes is, or name one"
        )
    if options.fallback and options.target != "tensorrt":
        raise InputError("--fallback is for --target tensorrt", "leave it out: onnxruntime runs the graph already")
    pipeline_options = pipeline.Options(
        precisions=PRECISIONS if options.all_variants else options.precision, force=options.force,
        fallback=options.fallback, overwrite=options.overwrite,
    )  # fmt: skip
    loaded = [recipe.load_any(path) for path in paths]
    recipes = [entry for entry in loaded if isinstance(entry, Recipe)]
    language = [entry for entry in loaded if isinstance(entry, LanguageRecipe)]
    forests.check(options, recipes)
    checked = language_models.check(options, language, recipes) if language else []
    if not recipes:
        return language_models.build(options, checked)
    try:
        built = pipeline.build(recipes, options.repository, options.target, pipeline_options)
    except KeyboardInterrupt:
        text = f"interrupted: {options.repository} is as it was; what was exported and measured is kept, and the same "
        text += "command goes on from there"
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
        raise
    if options.json:
        beside = {"language_models": language_models.as_json(options, checked)} if checked else {}
        print_json({"repository": str(options.repository), **built.as_json(), **beside})
        return 0
    # With --all nobody named a model: what is as it was needs no table.
    shown = [name for name in built.models if options.recipes or name in {*built.written, *built.exported}]
    _print_models(built, shown)
    if rest := [name for name in built.models if name not in shown]:
        out.print(f"unchanged: {', '.join(rest)}", markup=False)
    _print_beside(built)
    state = "written" if built.changed else "up to date"
    following = _next(options.target, options.repository)
    text = f"{chr(10) if shown else ''}{options.repository} is {state}; next: {following}"
    out.print(text, soft_wrap=True, markup=False)  # so that the command can be copied
    if built.changed:
        _print_servers(options.repository, recipes)
    return language_models.build(options, checked) if checked else 0


def _print_models(built: Built, names: Sequence[str]) -> None:
    """What each of these models is, and what the gate measured of it."""
    table = make_table("model", "precision", "graph", "largest error of the export", "")
    for name in names:
        model = built.models[name]
        how = "exported now" if name in built.exported else "unchanged"
        if model.forest:
            how = "written" if name in built.written else "unchanged"
        shipped = model.precision + (" (forced)" if model.forced else " (tuned)" if model.tuned else "")
        table.add_row(name, shipped, f"{model.graph_bytes / 1e6:.1f} MB", _worst(model), how)
    if names:
        out.print(table)
    forests.print_facts({name: built.models[name] for name in names})
    for name in names:
        model = built.models[name]
        if model.gate:
            out.print()
            out.print(gate_table(name, model))
        if text := _queue(model):
            out.print(f"{name}: {text}", markup=False)


def _print_beside(built: Built) -> None:
    """What else lies in the models' directories: files of the user's own, and other versions."""
    if built.kept:
        out.print(
            f"\nleft as it is, as tritonkit did not write it: {', '.join(built.kept)}", soft_wrap=True, markup=False
        )
    for name, versions in built.beside.items():
        text = f"{name}: versions {', '.join(map(str, versions.present))} are there"
        text += f"; served: {', '.join(map(str, versions.served))}"
        if not versions.chosen and versions.built not in versions.served:
            text += f", the highest, and not {versions.built} (the recipe serves it with  version: {versions.built})"
        out.print(text, soft_wrap=True, markup=False)


def _print_servers(repository: Path, recipes: Sequence[Recipe]) -> None:
    """How each server that runs on the repository comes to serve what was built."""
    from tritonkit import pipeline
    from tritonkit.repository import ownership
    from tritonkit.server import neighbours

    models = {name for recipe in recipes for name in pipeline.names(recipe)}
    packages = ownership.packages_of(repository / name for name in models)
    for neighbour in neighbours.find(repository):
        if neighbour.serves(models):
            names = [recipe.entry for recipe in recipes]
            out.print(neighbour.advice(names, repository, packages), soft_wrap=True, markup=False)


def _queue(model: BuiltModel) -> str:
    """How long the queue is and why; empty where nothing follows from an SLO."""
    if model.queue:
        text = str(model.queue)
        named = ", ".join(f"{name} {value}" for name, value in model.queue_by_name.items())
        return f"the recipe says {named}; from its SLO would follow: {text}" if named else text
    if not model.slo_ms or not model.alone_ms:
        return ""
    return (
        f"one request takes {model.alone_ms:.1f} ms here and the SLO is {model.slo_ms:g} ms, which leaves "
        "nobody time to wait: the queue has its usual bounds"
    )


def _next(target: str, repository: Path) -> str:
    """The command that goes on with this repository, and where, if not on this machine."""
    named = shlex.quote(str(repository))
    if target == "tensorrt":
        return f"tritonkit engine {named}/MODEL, on each GPU"
    serve = "tritonkit serve" if repository == _REPOSITORY else f"tritonkit serve {named}"
    from tritonkit.server.runtime import detect_device  # not before it is needed: help and errors start sooner

    if target == "cuda" and detect_device() != "cuda":
        return f"{serve}, where there is a GPU; or tritonkit publish {named} DESTINATION"
    return serve


def _precisions(text: str) -> tuple[str, ...]:
    precisions = tuple(part.strip() for part in text.split(",") if part.strip())
    if not precisions or not set(precisions) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"{text!r}: name some of {', '.join(PRECISIONS)}, with commas")
    return precisions


def gate_table(name: str, model: BuiltModel) -> Table:
    """What the gate found, a variant a line."""
    from tritonkit.precision import work

    rows = model.gate
    metrics = list(dict.fromkeys(metric for row in rows for metric in row.accuracy))
    batch = max((row.batch for row in rows), default=0)
    title = f"{name}: accuracy on {model.judged_on} samples that made no variant"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("", *(row.precision for row in rows)):
        table.add_column(column, overflow="fold")
    lines = {
        metric.replace("_", " "): [_measured(metric, row.accuracy.get(metric)) for row in rows] for metric in metrics
    }
    lines |= {
        "size, MB": [f"{row.graph_bytes / 1e6:.1f}" if row.graph_bytes else "" for row in rows],
        "1 sample, ms": [_number(row.single_ms, ".2f") for row in rows],
        f"{batch} samples, ms": [_number(row.batched_ms, ".2f") for row in rows],
        "samples/s": [_number(row.throughput, ".1f") for row in rows],
        "not in 8 bits, of the work": [
            escape(work.describe((row.notes or {}).get("not_quantized", {}))) for row in rows
        ],
        "made in, s": [_number(row.seconds, ".1f") for row in rows],
        "verdict": [f"[{_COLOURS[row.verdict]}]{row.verdict}[/]" for row in rows],
        "": [escape(row.why) for row in rows],
    }
    for label, cells in lines.items():
        if any(cells):
            table.add_row(label, *cells)
    return table


def _measured(metric: str, value: float | None) -> str:
    """A metric's value; equal outputs have no noise to compare a signal with."""
    return "exact" if metric == "sqnr_db" and value is not None and value > EXACT_DB else _number(value)


def _number(value: float | None, form: str = ".4g") -> str:
    return "" if value is None or value != value else format(value, form)


EXACT_DB = 200  # far above what fp32 can tell apart
_COLOURS = {"base": "default", "accepted": "green", "refused": "red", "unproven": "yellow", "not built": "dim"}


def _worst(model: BuiltModel) -> str:
    measured = model.worst_parity
    if measured is None:
        return "no library of its own" if model.forest else "not batched: nothing to compare"
    what = "" if measured.check == "module" else " (rows in a batch against rows alone)"
    return f"{measured.relative:.1e} relative, {measured.max_abs:.1e} absolute{what}"


def _init(options: argparse.Namespace) -> int:
    from tritonkit import initialise, llm, sources, trees
    from tritonkit.trees import libraries

    initialise.check_file(options.model)
    if trees.is_forest(Path(options.model)):
        return forests.init(options)
    if not options.input and llm.is_language_model(Path(options.model)):
        return language_models.init(options)
    directory = (options.output or Path("recipe.yaml")).absolute().parent
    shapes = dict(initialise.parse_input(text) for text in options.input)
    if not 0 <= options.max_batch_size <= MOST_BATCH:
        raise InputError(f"--max-batch-size {options.max_batch_size} is no batch size", f"0 to {MOST_BATCH}")
    if options.output and options.output.exists():  # before a model is loaded and run
        raise OutputError(f"{options.output} exists", "name another file with --output")
    try:
        sketch = initialise.sketch(options.model, directory, shapes, options.max_batch_size)
    except sources.NotAModuleError as error:
        if not libraries.is_model(error.value):
            raise
        return forests.init(options, error.value)
    write_recipe(options.output or Path(f"{sketch.name}.yaml"), initialise.as_yaml(sketch))
    return 0
