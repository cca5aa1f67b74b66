"""The variables that lead a reader's next verb to the model and the SLO of the run before."""

from __future__ import annotations

import itertools
import shlex
import sys

_PROGRAM = "tritonkit-load"


def variables(command: str, model: str) -> str:
    """What stands behind a verb: ``MODEL=two_towers.yaml SLO=p99_ms=30``.

    A recipe outside build/recipes is known by its file alone, and an SLO that the recipe does not have must be given
    again.

    Args:
        command: As a result keeps it, ``tritonkit-load run --model two_towers.yaml --slo p99_ms=30``.
        model: The name that the recipe gives it.
    """
    slo = _option(command, "--slo")
    return f"MODEL={typed(command, model)}" + (f" SLO={shlex.quote(slo)}" if slo else "")


def capacity(command: str, model: str) -> str:
    """The command that finds a capacity, against the same server where ``--host`` named one."""
    server = host(command)
    if not server:
        return f"make capacity {variables(command, model)}"
    slo = _option(command, "--slo")
    words = [_PROGRAM, "capacity", "--model", _typed(command, model), "--host", server]
    return shlex.join([*words, *(["--slo", slo] if slo else [])])


def setting(command: str, variable: str, value: str) -> str:
    """How a verb takes a setting: ``DURATION=60s``; ``--duration 60s`` beside ``--host``, which make does not have."""
    return f"--{variable.lower()} {value}" if host(command) else f"{variable}={value}"


def running(verb: str) -> str:
    """The command of this process, as a result keeps it: its verb, and the words that came after it."""
    return shlex.join([_PROGRAM, verb, *sys.argv[1:]])


def verb(command: str) -> str:
    """The verb of a command of ``tritonkit-load``; empty where it is another's."""
    words = command.split()
    return words[1] if words[:1] == [_PROGRAM] and len(words) > 1 else ""


def host(command: str) -> str:
    """The server that ``--host`` named; empty where one was started."""
    return _option(command, "--host")


def typed(command: str, model: str) -> str:
    """The model as it was typed: by its recipe's file, quoted for a shell, or by its name."""
    return shlex.quote(_typed(command, model))


def _typed(command: str, model: str) -> str:
    words = (_option(command, "--model") or _option(command, "--models")).split(",")
    recipes = [word.partition(":")[0].strip() for word in words]
    named = [recipe for recipe in recipes if recipe.rpartition("/")[2].partition(".")[0] == model]
    files = [recipe for recipe in (named or recipes) if recipe.endswith((".yaml", ".yml"))]
    return files[0] if len(files) == 1 and (named or len(recipes) == 1) else model


def _option(command: str, name: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:  # no command line: a stranger's result
        return ""
    values = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    values += [value for word, value in itertools.pairwise(words) if word == name]
    return values[0] if values else ""
