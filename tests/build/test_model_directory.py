"""A model's directory: which folders are versions, which of them Triton loads, and how its configuration reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonkit.errors import InputError
from tritonkit.repository import config, model_directory


def test_versions_are_folders_that_triton_takes_for_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "0", "01", "v1", "1_old", "configs", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").touch()
    assert model_directory.versions(tmp_path) == [0, 2, 10]
    assert model_directory.versions(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("policy", "loaded"),
    [
        ("", [3]),
        ("version_policy { }", [3]),
        ("version_policy { all { } }", [1, 2, 3]),
        ("version_policy { specific { versions: [1, 3, 9] } }", [1, 3]),
        ("version_policy { latest { num_versions: 2 } }", [2, 3]),
        ("version_policy { latest { num_versions: 9 } }", [1, 2, 3]),
        ("version_policy { latest { num_versions: 0 } }", []),  # lint's case TK006 holds the server to it
        ("version_policy { latest { } }", []),
    ],
)
def test_the_policy_says_which_versions_are_loaded(policy: str, loaded: list[int]) -> None:
    assert model_directory.loaded([1, 2, 3], config.parse(policy)) == loaded


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    assert model_directory.read_config(path) is None
    assert model_directory.find_config(tmp_path) is None
    for content in (b"no configuration {", b"\xff\xfe"):
        path.write_bytes(content)
        assert model_directory.find_config(tmp_path) is None
        with pytest.raises(InputError, match=r"config\.pbtxt is no model configuration"):
            model_directory.read_config(path)
    path.write_text('backend: "python"')
    parsed = model_directory.find_config(tmp_path)
    assert parsed is not None
    assert parsed.backend == "python"


def test_labels_are_files_beside_the_configuration() -> None:
    names = ["labels.txt", "labels_top.txt", "1/labels.txt", "labels.json", "config.pbtxt"]
    assert list(filter(model_directory.is_labels, names)) == ["labels.txt", "labels_top.txt"]
