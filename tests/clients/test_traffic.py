"""Shares of versions: so many callers, always the same version for a key, and few changes with the shares."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tritonkit_client import InvalidInput, Traffic

KEYS = [f"user-{number}" for number in range(20_000)]


def split(shares: dict[str, float], model: str = "clf") -> dict[str, str]:
    traffic = Traffic(model, shares)
    return {key: traffic.version(key) for key in KEYS}


@pytest.mark.parametrize("shares", [{"1": 90.0, "2": 10.0}, {"1": 1.0, "2": 2.0, "10": 1.0}, {"1": 0.0, "2": 5.0}])
def test_versions_get_callers_by_their_shares(shares: dict[str, float]) -> None:
    counts = Counter(split(shares).values())
    for version, share in shares.items():
        expected = share / sum(shares.values())
        tolerance = 5 * (expected * (1 - expected) / len(KEYS)) ** 0.5  # five standard deviations of a binomial
        assert abs(counts[version] / len(KEYS) - expected) <= tolerance


def test_a_caller_changes_only_to_a_version_whose_share_grew() -> None:
    before, after = split({"1": 90, "2": 10}), split({"1": 50, "2": 50})
    changes = Counter((before[key], after[key]) for key in KEYS)
    assert changes["2", "1"] == 0, "who had the new version keeps it"
    assert 0.36 < changes["1", "2"] / len(KEYS) < 0.44
    assert set(split({"1": 0, "2": 100}).values()) == {"2"}


def test_two_models_split_their_callers_independently() -> None:
    both = Counter(zip(split({"1": 1, "2": 1}, "a").values(), split({"1": 1, "2": 1}, "b").values(), strict=True))
    assert min(both.values()) > 0.2 * len(KEYS)


def test_another_process_chooses_alike() -> None:
    code = "from tritonkit_client import Traffic; t = Traffic('clf', {'1': 1, '2': 1}); print([t.version(f'user-{n}') for n in range(50)])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str([Traffic("clf", {"1": 1, "2": 1}).version(f"user-{number}") for number in range(50)])


def test_numbers_and_bytes_are_keys_too() -> None:
    traffic = Traffic("clf", {"1": 1, "2": 1})
    assert traffic.version(17) == traffic.version("17") == traffic.version(b"17")


def test_a_configuration_without_shares_leaves_the_choice_to_the_server() -> None:
    assert Traffic.from_config({"name": "clf"}).version("anybody") == ""


@pytest.mark.parametrize("text", ["1", "1:x", "1:0", "1:-1,2:3", "1:nan"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="clf") as caught:
        Traffic.from_config({"name": "clf", "parameters": {"traffic": {"string_value": text}}})
    assert caught.value.fix
