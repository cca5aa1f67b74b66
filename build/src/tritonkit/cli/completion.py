"""``tritonkit completion``: what a shell needs to complete commands, options and files with the Tab key."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from tritonkit.cli.output import Verbs
from tritonkit.errors import MissingError


def add(verbs: Verbs, common: argparse.ArgumentParser, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the arguments of ``completion``; ``parser`` makes the whole command line, which is what is completed."""
    completion = verbs.add_parser(
        "completion", parents=[common], help="print what a shell needs to complete commands, options and files",
        examples=['eval "$(tritonkit completion bash)"', "tritonkit completion zsh > ~/.zfunc/_tritonkit",
                  "tritonkit completion fish > ~/.config/fish/completions/tritonkit.fish"],
    )  # fmt: skip
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    completion.set_defaults(command=lambda options: _completion(options.shell, parser()))


def _completion(shell: str, parser: argparse.ArgumentParser) -> int:
    try:
        import shtab
    except ImportError as error:
        raise MissingError("the package shtab is not installed", "pip install shtab") from error
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell))  # noqa: T201
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> None:
    """Mark every argument that is a path; shtab looks for the mark on the argument."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
