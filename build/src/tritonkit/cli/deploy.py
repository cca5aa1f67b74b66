"""``tritonkit deploy``: shows what a release would become, deploys it, or rolls it back."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from tritonkit.cli.output import Verbs
from tritonkit.errors import InputError, MissingError

_PACKAGES = ("jsonschema", "kubernetes_validate")


def add(verbs: Verbs, common: argparse.ArgumentParser, _report: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    deploy = verbs.add_parser(
        "deploy", parents=[common], help="deploy an environment's models with the Helm chart, or roll back",
        examples=["tritonkit deploy prod.yaml",
                  "tritonkit deploy prod.yaml --apply",
                  "tritonkit deploy prod.yaml --rollback",
                  "tritonkit deploy staging --rollback 3"],
    )  # fmt: skip
    deploy.add_argument("environment", help="a file of `deploy:` and `values:`, or a name in helm/environments")
    deploy.add_argument(
        "--apply", nargs="?", const="yes", default="", metavar="YES", help="do it; without, or with 0, only look"
    )
    deploy.add_argument(
        "--rollback", nargs="?", type=int, const=0, metavar="REVISION",
        help="go back to a revision; default: the one before",
    )  # fmt: skip
    deploy.add_argument(
        "--project", type=Path, default=Path(), metavar="FOLDER",
        help="has model_repository, gets reports; default: the current one",
    )  # fmt: skip
    deploy.set_defaults(command=_deploy)


def _deploy(options: argparse.Namespace) -> int:
    apply = is_yes(options.apply)
    if options.rollback is not None and options.apply:
        raise InputError("--apply and --rollback are two things", "give one of them; a rollback is always done")
    if lacking := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        text = (
            f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed: the schemas of Kubernetes"
        )
        raise MissingError(text, "pip install 'tritonkit[deploy]'")
    from tritonkit.deploying import commands

    if options.rollback is not None:
        return commands.rollback(options.environment, options.project, options.rollback)
    return commands.deploy(options.environment, options.project, apply=apply)


def is_yes(word: str) -> bool:
    """Whether the word after ``--apply``, or make's ``APPLY=…``, means yes.

    Raises:
        InputError: The word is neither yes nor no.
    """
    if word.lower() in {"1", "yes", "y", "true", "on"}:
        return True
    if word.lower() in {"", "0", "no", "n", "false", "off"}:
        return False
    raise InputError(f"APPLY={word} is neither yes nor no", "APPLY=1 deploys; without it, this only looks")
