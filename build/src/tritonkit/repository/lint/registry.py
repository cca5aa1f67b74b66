"""The rules by their ids: what each finds, who enforces it, how to find one by its name.

A rule is a function from a model to its problems; its docstring is what ``--explain`` prints.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tritonkit.errors import InputError
from tritonkit.repository.lint.contents import Model, Repository
from tritonkit.repository.lint.findings import Options, Problem, Severity

CORE = "Triton's core"
PYTHON = "python backend"
ONNXRUNTIME = "onnxruntime backend"
# The embedded server has no C++ backend for these: read in their sources, not run by our tests.
ONNXRUNTIME_CPP = "onnxruntime backend (C++), not run here"
TRITONKIT = "tritonkit_onnxruntime backend"
TENSORRT = "tensorrt backend, not run here"
FIL = "fil backend"
FIL_CPP = "fil backend (C++), not run here"
VLLM = "vllm backend, not run here"
TENSORRT_LLM = "TensorRT-LLM's model, not run here"
REQUESTS = "nobody at load time; requests fail"
ADVICE = ""


@dataclass(frozen=True)
class Context:
    """What a rule may look at beside its model."""

    repository: Repository
    options: Options


Check = Callable[[Model, Context], Iterable[Problem]]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: ``TK`` and three digits; never used again for another rule.
        slug: Its name for people.
        severity: What it is at worst.
        summary: What it finds, in a few words.
        enforced_by: Who refuses this in Triton; empty for advice.
        always: Whether it can judge a model whose configuration cannot be used.
        source: A Triton issue, documentation page or decision of ours; may be empty.
        check: The function.
    """

    id: str
    slug: str
    severity: Severity
    summary: str
    enforced_by: str
    source: str
    always: bool
    check: Check

    @property
    def explanation(self) -> str:
        """Why it matters, in some sentences."""
        return " ".join((inspect.getdoc(self.check) or "").split())


RULES: dict[str, Rule] = {}


def rule(
    id: str,  # noqa: A002
    slug: str,
    severity: Severity,
    summary: str,
    *,
    enforced_by: str = ADVICE,
    source: str = "",
    always: bool = False,
) -> Callable[[Check], Check]:
    """Register a function as a rule."""

    def register(check: Check) -> Check:
        if id in RULES:
            raise ValueError(f"two rules are called {id}")
        RULES[id] = Rule(id, slug, severity, summary, enforced_by, source, always, check)
        return check

    return register


def in_order() -> list[Rule]:
    """All rules by their ids."""
    return [RULES[key] for key in sorted(RULES)]


def find(name: str) -> Rule:
    """The rule of an id or slug, in any case.

    Raises:
        InputError: No rule has this id or slug; the fix names the nearest.
    """
    by_slug = {rule.slug: rule for rule in RULES.values()}
    word = name.strip()
    rule = RULES.get(word.upper()) or by_slug.get(word.lower())
    if rule is None:
        hint = nearest(word)
        raise InputError(
            f"there is no rule {name!r}",
            f"{f'did you mean {hint}? ' if hint else ''}`tritonkit lint --rules` lists them",
        )
    return rule


def nearest(name: str) -> str:
    """The id or slug that looks most like ``name``; empty if none does."""
    known = {key.lower(): key for key in RULES} | {rule.slug: rule.slug for rule in RULES.values()}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return known[near[0]] if near else ""
