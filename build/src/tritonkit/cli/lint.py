"""``tritonkit lint``: what is wrong with a model repository, without a GPU and without starting Triton."""

from __future__ import annotations

import argparse
from pathlib import Path

from tritonkit.cli.output import Verbs, out, print_json


def add(verbs: Verbs, _common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lint``."""
    lint = verbs.add_parser(
        "lint", parents=[report], help="find what is wrong with a model repository",
        examples=["tritonkit lint", "tritonkit lint model_repository --image 26.09-py3 --gpu l4",
                  "tritonkit lint --explain TK100"],
    )  # fmt: skip
    lint.add_argument("repository", type=Path, nargs="?", default=Path("model_repository"), help="default: %(default)s")
    lint.add_argument(
        "--image",
        metavar="TAG",
        help="the image that will serve it, such as 26.08-py3, nvcr.io/nvidia/tritonserver:26.08-py3 or your own",
    )
    lint.add_argument("--gpu", metavar="NAME", help="the GPU of the nodes: l4, any, none")
    lint.add_argument(
        "--server-arg", action="append", metavar="--FLAG=VALUE", help="a flag that tritonserver will get; repeatable"
    )
    lint.add_argument("--format", choices=["text", "json", "sarif"], help="default: text; --json is --format json")
    lint.add_argument("--strict", action="store_true", help="warnings fail too")
    lint.add_argument("--explain", metavar="ID", help="say why a rule exists, and stop")
    lint.add_argument("--rules", action="store_true", help="list the rules, and stop")
    lint.set_defaults(command=_lint)


def _lint(options: argparse.Namespace) -> int:
    from tritonkit.repository import lint
    from tritonkit.repository.lint import findings, registry, report, sarif

    if options.explain:
        report.print_rule(registry.find(options.explain), out)
        return 0
    if options.rules:
        report.print_rules(registry.in_order(), out)
        return 0
    gpu, has_gpu = findings.parse_gpu(options.gpu) if options.gpu else (None, None)
    known = findings.Options(
        image=findings.parse_image(options.image) if options.image else None,
        origin=findings.parse_origin(options.image or ""),
        variant=findings.parse_variant(options.image or ""),
        gpu=gpu,
        has_gpu=has_gpu,
        server=findings.join_flags(options.server_arg) if options.server_arg else None,
    )
    result = lint.check(options.repository, known)
    output_format = options.format or ("json" if options.json else "text")
    if output_format == "json":
        print_json(report.as_json(result))
    elif output_format == "sarif":
        print_json(sarif.as_sarif(result))
    else:
        report.print_text(result, out)
    failed = result.counts["error"] > 0 or (options.strict and result.counts["warning"] > 0)
    return 1 if failed else 0
