"""``tritonkit engine``: plans for GPUs, or what would fail there; ``passport``: who made a model, may it run here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from tritonkit.cli.output import Verbs, make_table, out, print_json
from tritonkit.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from tritonkit.engines.builder import Options, Toolkit
    from tritonkit.engines.check import ModelCheck
    from tritonkit.engines.jobs import Job
    from tritonkit.engines.preflight import Verdict
    from tritonkit.gpus import Gpu
    from tritonkit.passport import EnginePassport, ModelPassport
    from tritonkit.recipe import Precision

_COLOURS = {"ok": "green", "refused": "red", "unsupported": "red", "limit": "yellow", "unchecked": "yellow"}
_WORDS = {"unchecked": "not checked", "limit": "preflight limit"}


def add(verbs: Verbs, _common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``engine`` and ``passport``."""
    engine = verbs.add_parser(
        "engine", parents=[report], help="build TensorRT engines, or check without a GPU",
        examples=["tritonkit engine my_model.yaml --preflight --gpu t4,a10g,l4",
                  "tritonkit engine model.onnx --max-batch-size 16 --shapes time=1:64:512 --gpu l4"],
    )  # fmt: skip
    engine.add_argument("model", type=Path, help="a recipe, an ONNX file, or a model's directory in a repository")
    engine.add_argument("--gpu", metavar="NAME,…", help="for example t4,a10g,l4,a100; default: the recipe's")
    engine.add_argument("--precision", metavar="WORD,…", help="fp32, fp16, int8, fp8; default: what the model has")
    engine.add_argument("--preflight", action="store_true", help="no GPU: try every combination with TensorRT-RTX")
    engine.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="DIR",
        help="where plans go; default: the model's directory, or engines/MODEL",
    )
    engine.add_argument(
        "--shapes",
        action="append",
        default=[],
        metavar="NAME=MIN:OPT:MAX",
        help="range of a dynamic dimension of an ONNX file; repeat it for more",
    )
    engine.add_argument("--max-batch-size", type=int, default=0, metavar="N", help="of an ONNX file; 0: not batched")
    engine.add_argument("--workspace", type=float, metavar="GIB", help="scratch memory; default: all of the GPU's")
    engine.add_argument(
        "--hardware-compatibility",
        choices=["none", "ampere_plus", "same_compute_capability"],
        default="none",
        help="other GPUs that the plan must run on; default: %(default)s",
    )
    engine.add_argument("--version-compatible", action="store_true", help="later TensorRT versions must run it")
    engine.add_argument("--weight-stripped", action="store_true", help="leave the weights out, to be refitted")
    engine.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="LIBRARY",
        help="library of operators; repeat it for more",
    )
    engine.set_defaults(command=_engine)

    passport = verbs.add_parser(
        "passport", parents=[report], help="who made a model, from what; may it run here",
        examples=["tritonkit passport", "tritonkit passport my_model --check --image 26.09-py3"],
    )  # fmt: skip
    passport.add_argument("models", nargs="*", metavar="MODEL", help="directories or names; default: all")
    passport.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    passport.add_argument("--check", action="store_true", help="compare with this node; exit 1 on a mismatch")
    passport.add_argument("--image", metavar="TAG", help="the Triton image that will serve, such as 26.09-py3")
    passport.add_argument(
        "--print-server-args",
        action="store_true",
        help="print what tritonserver is to be started with here; exit 0 if fallbacks cover it",
    )
    passport.set_defaults(command=_passport)  # fmt: skip


@dataclass(frozen=True)
class _BuildRequest:
    """What to build; whether its precisions were named; the model's own GPUs, and where its plans go by default."""

    jobs: list[Job]
    named: bool
    gpus: Sequence[str]
    output: Path


def _engine(options: argparse.Namespace) -> int:
    from tritonkit import gpus
    from tritonkit.engines import plans, preflight

    request = _build_request(options)
    names = options.gpu.split(",") if options.gpu else request.gpus
    if not names:
        raise InputError("no GPU is named", "--gpu t4,a10g,l4,a100, or `gpus:` in the recipe")
    target_gpus = gpus.get_all(names)
    build_options = _options(options)
    if options.preflight:
        toolkit, verdicts = preflight.run(request.jobs, target_gpus, build_options, options.output)
        _print_preflight(options, toolkit, request.jobs, verdicts)
        return 1 if preflight.failed(verdicts, request.named) else 0
    written, elsewhere = plans.build(request.jobs, target_gpus, options.output or request.output, build_options)
    _print_plans(options, written, elsewhere)
    return 0


def _build_request(options: argparse.Namespace) -> _BuildRequest:
    from tritonkit import recipe as recipes
    from tritonkit.engines import jobs, profiles

    named = jobs.parse_precisions(options.precision) if options.precision else None
    if options.model.suffix == ".onnx":
        if options.max_batch_size < 0:
            raise InputError(f"--max-batch-size {options.max_batch_size} is below 0", "0 means not batched")
        ranges = profiles.parse_ranges(options.shapes)
        job = jobs.from_onnx(options.model, _only(options.model, named), ranges, options.max_batch_size)
        return _BuildRequest([job], bool(named), (), Path("engines") / job.model)
    if options.shapes or options.max_batch_size:
        raise InputError(
            "--shapes and --max-batch-size are for ONNX files", "put shapes and max_batch_size into the recipe"
        )
    if options.model.is_dir():
        job, recipe, place = jobs.from_directory(options.model, _only(options.model, named))
        return _BuildRequest([job], bool(named), recipe.gpus, place)
    recipe = recipes.load_graph(options.model)
    recipe_jobs = jobs.from_recipe(recipe, named or recipe.precisions)
    return _BuildRequest(recipe_jobs, bool(named), recipe.gpus, Path("engines") / recipe.name)


def _only(model: Path, named: Sequence[Precision] | None) -> Precision | None:
    if named and len(named) > 1:
        raise InputError(
            f"{model} has one graph, which has one precision; --precision says {', '.join(named)}",
            "name a recipe to build several, or one precision",
        )
    return named[0] if named else None


def _options(options: argparse.Namespace) -> Options:
    from tritonkit.engines.builder import Options

    if options.workspace is not None and options.workspace <= 0:
        raise InputError(f"--workspace {options.workspace} is not above 0", "for example --workspace 2")
    return Options(
        workspace_bytes=None if options.workspace is None else int(options.workspace * 2**30),
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        weight_stripped=options.weight_stripped,
        plugins=tuple(options.plugin),
    )


def _print_preflight(
    options: argparse.Namespace, toolkit: Toolkit, jobs: Sequence[Job], verdicts: Sequence[Verdict]
) -> None:
    from tritonkit.engines import layer_precision

    if options.json:
        profiles = [{name: asdict(shapes) for name, shapes in profile.items()} for profile in jobs[0].profiles]
        header: dict[str, Any] = {"model": jobs[0].model, "builder": toolkit.name, "builder_version": toolkit.version}
        print_json({**header, "profiles": profiles, "verdicts": [asdict(verdict) for verdict in verdicts]})
        return
    table = make_table("precision", "gpu", "sm", "verdict", "compute layers", "plan MB", "s")
    for verdict in verdicts:
        colour = _COLOURS[verdict.status]
        table.add_row(
            verdict.precision, verdict.gpu, verdict.compute_capability,
            f"[{colour}]{_WORDS.get(verdict.status, verdict.status)}[/]",
            layer_precision.describe(verdict.layers) if verdict.layers else "",
            f"{verdict.plan_bytes / 1e6:.1f}" if verdict.plan_bytes else "",
            f"{verdict.seconds:.1f}" if verdict.seconds else "",
        )  # fmt: skip
    out.print(table)
    for text in _explanations(verdicts):
        out.print(escape(text), soft_wrap=True)
    out.print(f"{toolkit.name} {toolkit.version}; plans for Triton are built by TensorRT on a node with the GPU",
              soft_wrap=True)  # fmt: skip


def _explanations(verdicts: Sequence[Verdict]) -> list[str]:
    """Each reason once, with the precisions and GPUs that it holds for."""
    gpus_by_reason: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts:
        reasons = [f"{reason}" + (f"\n  fix: {reason.hint}" if reason.hint else "") for reason in verdict.reasons]
        for text in (*reasons, *verdict.notes):
            gpus_by_reason.setdefault(text, {}).setdefault(verdict.precision, []).append(verdict.gpu)
    where = [
        "; ".join(f"{name} on {', '.join(gpus)}" for name, gpus in precisions.items())
        for precisions in gpus_by_reason.values()
    ]
    return [f"{place}: {text}" for place, text in zip(where, gpus_by_reason, strict=True)]


def _print_plans(options: argparse.Namespace, written: Sequence[Any], elsewhere: Sequence[Gpu]) -> None:
    from tritonkit.engines import layer_precision

    if options.json:
        plans = [
            {"plan": str(built.path), "seconds": built.seconds, "notes": built.notes}
            | built.passport.model_dump(mode="json")
            for built in written
        ]
        print_json({"plans": plans, "elsewhere": [gpu.family for gpu in elsewhere]})
        return
    for built in written:
        passport = built.passport
        size, layers = f"{passport.plan_bytes / 1e6:.1f} MB", layer_precision.describe(passport.layers)
        out.print(f"{built.path}: {passport.precision} for {passport.gpu}, {size}, {layers}, {built.seconds:.1f} s")
        for note in built.notes:
            out.print(escape(note))
    if elsewhere:
        out.print(f"to be built on their own nodes: {', '.join(gpu.family for gpu in elsewhere)}")


def _passport(options: argparse.Namespace) -> int:
    directories = directories_of(options.models, options.repository)
    if options.print_server_args:
        print(server_args(directories, options.image))  # noqa: T201
        return 0
    if options.check:
        return _check(options, directories)
    models = [_describe_model(directory) for directory in directories]
    if options.json:
        print_json([model.as_json() for model in models])
        return 0
    for model in models:
        _print_passport(model)
    return 0


def directories_of(models: Sequence[str], repository: Path) -> list[Path]:
    """The models that were named, or all of a repository."""
    if models:
        directories = [Path(name) if Path(name).is_dir() else repository / name for name in models]
        for directory in directories:
            if not directory.is_dir():
                raise InputError(f"there is no model {directory.name!r} in {repository}", "name another --repository")
        return directories
    if not repository.is_dir():
        raise InputError(f"there is no repository {repository}", "name it with --repository")
    return sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))


@dataclass(frozen=True)
class _Described:
    """A model's directory: its passport, if it has one, and those of its plans by their paths in it."""

    model: str
    passport: ModelPassport | None
    engines: dict[str, EnginePassport]

    def as_json(self) -> dict[str, Any]:
        """Plain data; an empty passport where there is none."""
        engines = {plan: engine.model_dump(mode="json") for plan, engine in self.engines.items()}
        passport = self.passport.as_json() if self.passport else {}
        return {"model": self.model, "passport": passport, "engines": engines}


def _describe_model(directory: Path) -> _Described:
    from tritonkit.engines import check, passport

    plans = sorted(directory.rglob("*.plan"))
    engines = {str(plan.relative_to(directory)): passport.read(plan) for plan in plans}
    return _Described(directory.name, check.read_model(directory), engines)


def _print_passport(model: _Described) -> None:
    from tritonkit.engines import layer_precision

    out.print(f"[bold]{escape(model.model)}[/]" + ("" if model.passport or model.engines else ": no passport"))
    if model.passport:
        _print_model(model.passport)
    for plan, engine in model.engines.items():
        builder = f"{engine.builder} {engine.tensorrt_version}"
        where = f"{engine.compute_capability} ({engine.gpu or 'built without a GPU'})"
        layers = layer_precision.describe(engine.layers)
        out.print(f"  {plan}: {engine.precision} ({layers}), {builder}, {where}, "
                  f"{engine.plan_bytes / 1e6:.1f} MB, {engine.created}", soft_wrap=True)  # fmt: skip


def _print_model(passport: ModelPassport) -> None:
    facts = {
        "target": passport.target,
        "precision": passport.precision + (", forced" if passport.forced else ""),
        "made by": f"tritonkit {passport.tritonkit}" if passport.tritonkit else "",
        "graph": passport.graph_sha256[:16],
        "made from": ", ".join(f"{name} {version}" for name, version in passport.made_from.items()),
        "fallback": passport.fallback,
    }
    for name, fact in facts.items():
        if fact:
            out.print(f"  {name}: {escape(fact)}", soft_wrap=True)
    for row in passport.gate.variants if passport.gate else ():
        measured = ", ".join(
            f"{metric.replace('_', ' ')} {'not finite' if value is None else format(value, '.4g')}"
            for metric, value in row.accuracy.items()
        )
        why = f" ({row.why})" if row.why else ""
        out.print(f"  {row.precision} {row.verdict}{why}: {measured}".removesuffix(": "), soft_wrap=True)


def _check_models(directories: Sequence[Path], image: str | None) -> list[ModelCheck]:
    from tritonkit.engines import check, node

    this_node = node.read(image)
    return [check.check_model(directory, this_node) for directory in directories]


def _check(options: argparse.Namespace, directories: Sequence[Path]) -> int:
    results = _check_models(directories, options.image)
    if options.json:
        print_json([asdict(result) for result in results])
        return 1 if any(result.problems for result in results) else 0
    for result in results:
        if result.problems:
            out.print(escape("\n".join(_problem_lines(result))), soft_wrap=True)
        else:
            word = "may run here" if result.checked else "has no passport: nothing to compare"
            out.print(escape("\n".join([f"{result.model} {word}", *result.notes])), soft_wrap=True)
    return 1 if any(result.problems for result in results) else 0


def _problem_lines(result: ModelCheck) -> list[str]:
    lines = [f"{result.model} may not run here:", *result.notes]
    for problem in result.problems:
        where = f"{problem.plan}: " if problem.plan else ""
        lines += [f"  {where}{problem.text}", f"    fix: {problem.fix}"]
    if result.fallback:
        lines.append(
            f"  its fallback does: start Triton with --model-config-name={result.fallback} "
            "(--print-server-args prints that)"
        )
    return lines


def server_args(directories: Sequence[Path], image: str | None = None) -> str:
    """What tritonserver is to be started with on this node, as an init container hands it over; why, on standard error.

    Raises:
        CheckFailed: A model may not run here, and no fallback covers it.
    """
    from tritonkit.repository import model_directory

    results = _check_models(directories, image)
    failing = [result for result in results if result.problems]
    for result in failing:
        print("\n".join(_problem_lines(result)), file=sys.stderr)  # noqa: T201
    if uncovered := [result.model for result in failing if not result.fallback]:
        raise CheckFailed(
            f"no fallback covers {', '.join(uncovered)}",
            "schedule the pod elsewhere, or build the model with --fallback",
        )
    names = {result.fallback for result in failing}
    for result, directory in zip(results, directories, strict=True):
        if not result.problems and any((directory / model_directory.custom_config(name)).is_file() for name in names):
            print(f"{result.model} may run here, and is switched to its fallback with the others", file=sys.stderr)  # noqa: T201
    if len(names) > 1:
        raise CheckFailed(
            f"models state different fallbacks ({', '.join(sorted(names))}), and Triton takes one",
            "serve them from different servers",
        )
    return "".join(f"--model-config-name={name}" for name in names)
