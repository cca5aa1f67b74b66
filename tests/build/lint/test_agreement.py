"""Lint against the real server on a fixed sample of all changes to all fields; ``make bench-lint`` takes every one."""

from __future__ import annotations

import random
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from .mutations import BASES, mutants
from .sweep import compare

CORE, REAL = 240, 6  # a load takes milliseconds by Triton's core alone, and a second or two by a real backend


def test_no_error_is_false_and_few_refusals_are_missed(tmp_path: Path) -> None:
    dice = random.Random(7)
    everything = mutants()
    sample = dice.sample([mutant for mutant in everything if not mutant.base.real], CORE)
    sample += dice.sample([mutant for mutant in everything if mutant.base.real], REAL)
    comparison = compare(sample, tmp_path)
    assert comparison.false == {}
    assert len(comparison.missed) <= len(comparison.knowable) / 100, comparison.missed
    assert len(sample) / 4 < len(comparison.knowable) < len(sample)


def test_every_field_of_the_configuration_is_changed() -> None:
    changed = {mutant.path for mutant in mutants() if mutant.base is BASES[0]}
    assert {path[0] for path in changed} == {field.name for field in pb.ModelConfig.DESCRIPTOR.fields}
    assert ("sequence_batching", "state", "initial_state", "dims") in changed
    assert ("model_warmup", "inputs", "value", "input_data_file") in changed
