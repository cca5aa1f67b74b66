"""Passports: read whole or refused with what is wrong, and shown."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support import Project

from tritonkit.engines import passport
from tritonkit.errors import InputError


def test_what_was_written_is_read(plan: Any) -> None:
    path = plan()
    written = passport.read(path)
    assert written.capability == (8, 6)
    assert passport.path_of(path).name == "model_sm86.plan.json"
    passport.write(path, written)
    assert passport.read(path) == written


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "int8"}, "precision says int8, and layers counts none of it"),
        ({"compute_capability": "86"}, "compute_capability"),
        ({"tensorrt_version": "11"}, "tensorrt_version"),
        ({"plan_sha256": "abc"}, "plan_sha256"),
        ({"format": 2}, "format"),
        ({"model": None}, "model"),
        ({"profiles": [{"x": {"min": [8], "opt": [4], "max": [8]}}]}, "min <= opt <= max must hold"),
        ({"profiles": [{"x": {"min": [1], "opt": [4, 4], "max": [8]}}]}, "min <= opt <= max must hold"),
    ],
)
def test_a_passport_that_contradicts_itself_is_refused_with_the_place(plan: Any, changes: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        passport.read(plan(**changes))
    assert words in caught.value.message
    assert "model_sm86.plan.json" in caught.value.message
    assert caught.value.fix


def test_a_truncated_passport_is_bad_input(plan: Any, project: Project) -> None:
    path = plan()
    place = passport.path_of(path)
    place.write_bytes(place.read_bytes()[:100])
    code, _, error = project.run("passport", path.parents[1])
    assert code == 2
    assert "model_sm86.plan.json is no JSON, perhaps cut short" in error


def test_a_truncated_model_passport_is_bad_input(plan: Any, project: Project) -> None:
    directory = plan().parents[1]
    (directory / "passport.json").write_text('{"target": "tenso', encoding="utf-8")
    for arguments in ((), ("--check",)):
        code, _, error = project.run("passport", directory, *arguments)
        assert (code, "passport.json is no JSON" in error) == (2, True)


def test_show_says_who_made_a_model_from_what(plan: Any, project: Project) -> None:
    directory = plan().parents[1]
    about = {"target": "tensorrt", "precision": "fp16", "graph_sha256": "ab" * 32, "made_from": {"torch": "2.13.0"}}
    (directory / "passport.json").write_text(json.dumps(about), encoding="utf-8")
    code, stdout, _ = project.run("passport", directory)
    assert code == 0
    for fact in ("target: tensorrt", "torch 2.13.0", "1/model_sm86.plan: fp16 (2 fp16)", "tensorrt 11.4.0.106", "a10g"):
        assert fact in stdout
    code, stdout, _ = project.run("passport", "net", "--repository", directory.parent, "--json")
    (model,) = json.loads(stdout)
    assert model["passport"] == about
    assert model["engines"]["1/model_sm86.plan"]["plan_sha256"] == hashlib.sha256(b"plan").hexdigest()


def test_a_model_that_is_not_there_is_bad_input(project: Project, tmp_path: Path) -> None:
    for arguments in (["nothing"], ["--repository", tmp_path / "none"]):
        code, _, error = project.run("passport", *arguments)
        assert (code, "there is no" in error) == (2, True)


def test_models_that_tritonkit_built_have_one(zoo_repository: Path, project: Project) -> None:
    code, stdout, _ = project.run("passport", "--repository", zoo_repository)
    assert code == 0
    assert stdout.count("target: cpu") == 3  # the ensemble has none
    assert project.run("passport", "--check", "--repository", zoo_repository)[0] == 0
