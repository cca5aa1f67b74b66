"""All cases, family by family."""

from __future__ import annotations

from . import (
    cases_batching,
    cases_ensembles,
    cases_forests,
    cases_graph,
    cases_language,
    cases_layout,
    cases_releases,
    cases_sequences,
    cases_sizes,
    cases_tensorrt,
    cases_tensors,
    cases_warmup,
)
from .lab import Case

CASES: list[Case] = [
    *cases_layout.CASES,
    *cases_tensors.CASES,
    *cases_graph.CASES,
    *cases_batching.CASES,
    *cases_warmup.CASES,
    *cases_ensembles.CASES,
    *cases_tensorrt.CASES,
    *cases_sizes.CASES,
    *cases_sequences.CASES,
    *cases_releases.CASES,
    *cases_language.CASES,
    *cases_forests.CASES,
]
