"""Pickles clients for other processes, as Dask and Spark do: their arguments, without their connections."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._protocol.errors import InvalidInput, Origin

if TYPE_CHECKING:
    from ._base import BaseClient


def check_picklable(arguments: Mapping[str, Any], origin: Origin) -> None:
    """Name the argument that cannot be pickled; pickle itself names only some object deep inside of it.

    Raises:
        InvalidInput: Neither pickle nor, where it is in use, cloudpickle takes an argument.
    """
    # Looked up, not imported: a program that pickles with it has loaded it.
    cloudpickle = sys.modules.get("cloudpickle")
    ways: list[Callable[[Any], bytes]] = [pickle.dumps, *([cloudpickle.dumps] if cloudpickle else [])]
    for name, value in arguments.items():
        problems = [problem for way in ways if (problem := _problem(way, value))]
        if len(problems) == len(ways):
            raise InvalidInput(
                f"the client cannot be pickled: its {name}= cannot ({problems[-1]})",
                f"make {name}= of functions at the top of a module, or make the client where it is used",
                origin,
            )


def _problem(dumps: Callable[[Any], bytes], value: Any) -> str:
    try:
        dumps(value)
    except Exception as error:  # whatever an object's own __reduce__ raises
        return f"{type(error).__name__}: {error}"
    return ""


def remade(kind: type[BaseClient], arguments: Mapping[str, Any]) -> BaseClient:
    """Make a client from pickled arguments, in the process that unpickles them.

    Raises:
        InvalidInput: An argument cannot be used there: a file of ``tls`` does not exist on this machine, for example.
    """
    tls = arguments["tls"]
    return kind(**{**arguments, "tls": tls and replace(tls)})
