"""A model's passport: those of every release read, and what was read is written again to the letter."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tritonkit import parity, passport, queue_limits, sized_session
from tritonkit.errors import InputError
from tritonkit.passport import DeviceMemory, ForestParity, Gate, GateRow, Measurement, ModelPassport, Queue, Section
from tritonkit.precision import gate
from tritonkit.trees import checks

RECIPE = {"name": "net", "source": "net.py:load"}
PARITY = [{"check": "module", "output": "y", "inputs": "x (1, 4)", "max_abs": 0, "relative": 1e-7}]
ROW = {"precision": "fp32", "verdict": "base", "why": "", "accuracy": {"cosine": 1.0, "sqnr_db": None}}
# Shapes that releases wrote, the oldest first.
FIRST_OF_ALL: dict[str, Any] = {
    "tritonkit": "0.1.0", "model": "net", "target": "cpu", "recipe": RECIPE, "graph_sha256": "ab" * 32,
    "made_from": {"torch": "2.13.0"}, "parity": PARITY,
}  # fmt: skip
WITH_A_GATE: dict[str, Any] = {
    "tritonkit": "0.1.0", "model": "net", "target": "cpu", "precision": "int8", "forced": True, "recipe": RECIPE,
    "graph_sha256": "ab" * 32, "exported_sha256": "cd" * 32, "made_from": {}, "parity": PARITY,
    "gate": {"judged_on": 46, "variants": [ROW], "machine": "a processor, 2 cores"}, "cpu_features": ["avx512_vnni"],
}  # fmt: skip
OF_CUDA: dict[str, Any] = {
    **FIRST_OF_ALL, "target": "cuda", "precision": "fp16", "tuned": False, "gate": {"judged_on": 8, "variants": []},
    "memory": {"context_bytes": 1, "session_bytes": 20, "sizes_bytes": 300}, "tf32": {"allowed": True, "largest_error": None},
    "files": {"1/model.onnx": "ef" * 32},
}  # fmt: skip
OF_TENSORRT: dict[str, Any] = {"model": "net", "target": "tensorrt", "precision": "fp16", "fallback": "onnxruntime"}
OF_TREES: dict[str, Any] = {
    "tritonkit": "0.2.0", "model": "net", "version": 2, "target": "cpu", "precision": "fp32", "recipe": RECIPE,
    "forest": {"engine": "fil", "model_type": "xgboost_ubj", "task": "binary", "trees": 3, "categorical": [1]},
    "parity": {"library": "xgboost", "version": "3.2", "real_rows": 9, "absolute": 0.0, "relative": 0.0},
}  # fmt: skip
OF_LANGUAGE: dict[str, Any] = {
    "tritonkit": "0.2.0", "model": "net", "version": 1, "recipe": RECIPE,
    "llm": {"engine": "tensorrt_llm", "max_model_len": 64, "kv_cache": {"kind": "paged", "bytes_per_token": 8, "groups": []}},
    "sources": {"1/weights/model.safetensors": "ab" * 32}, "files": {},
}  # fmt: skip
BESIDE: dict[str, Any] = {"model": "net_before", "kind": "python", "of": "net", "packages": ["pillow==13.0.0"]}
NEWER: dict[str, Any] = {
    "model": "net", "colour": ["red"], "target": "metal", "gate": {"judged_on": 1, "variants": [{**ROW, "watts": 3}], "who": "x"},
    "queue": {"preferred_batch_size": 2, "max_queue_size": 4, "queue_timeout_ms": 60, "requests_per_s": 50.0,
              "slo_ms": 100.0, "service_ms": 20.0, "shed": True},
}  # fmt: skip
SHAPES = [FIRST_OF_ALL, WITH_A_GATE, OF_CUDA, OF_TENSORRT, OF_TREES, OF_LANGUAGE, BESIDE, NEWER]


def written(place: Path, data: object) -> Path:
    place.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return place


@pytest.mark.parametrize("data", SHAPES)
def test_passports_of_every_release_read_and_stay_to_the_letter(data: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "passport.json", data)
    for read in (passport.read(path), passport.find(path)):
        assert read is not None
        assert read.to_text() == path.read_text(encoding="utf-8")
        listed = read.to_text({"b": "2", "a": "1"})
        assert json.loads(listed) == data | {"files": {"a": "1", "b": "2"}}
        assert list(json.loads(listed)) == list(data | {"files": {}})


def test_what_readers_look_at_is_typed() -> None:
    oldest, gated, cuda, tensorrt, trees, language, beside, newer = map(ModelPassport.parse, SHAPES)
    assert (oldest.version, oldest.precision, oldest.files, oldest.gate) == (1, "", None, None)
    assert gated.gate
    assert [row.verdict for row in gated.gate.variants] == ["base"]
    assert (gated.forced, gated.cpu_features, gated.gate.variants[0].accuracy["sqnr_db"]) == (
        True,
        ("avx512_vnni",),
        None,
    )
    assert (cuda.instance_bytes, oldest.instance_bytes, cuda.files) == (321, 0, {"1/model.onnx": "ef" * 32})
    assert (tensorrt.fallback, trees.version, trees.forest and trees.forest.trees) == ("onnxruntime", 2, 3)
    assert (language.llm and language.llm.engine, language.files) == ("tensorrt_llm", {})
    assert (beside.kind, beside.packages) == ("python", ("pillow==13.0.0",))
    assert (newer.target, newer.queue and newer.queue.max_queue_size) == ("metal", 4)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cpu_features": "avx512_vnni"}, "cpu_features"),
        ({"gate": {"variants": [{"verdict": "base"}]}}, "gate.variants.0.precision"),
        ({"memory": {"session_bytes": "much"}}, "memory.session_bytes"),
        ({"queue": {}}, "queue.preferred_batch_size"),
        ({"precision": None}, "precision"),
        ({"version": "new"}, "version"),
    ],
)
def test_a_key_that_cannot_be_read_is_named_with_the_file(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    path = written(tmp_path / "passport.json", WITH_A_GATE | changes)
    with pytest.raises(InputError) as caught:
        passport.read(path)
    assert caught.value.message.startswith(f"{path}: {key}: ")
    assert caught.value.fix
    # A build, which must know what it wrote, goes by the rest.
    kept = passport.find(path)
    assert kept is not None
    assert (kept.model, kept.graph_sha256, kept.to_text()) == ("net", "ab" * 32, path.read_text(encoding="utf-8"))


def test_what_is_no_passport_is_none_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "passport.json"
    assert (passport.read(path), passport.find(path)) == (None, None)
    for data in ("[]", "3", '{"target": "tenso', "[" * 100_000):
        path.write_text(data, encoding="utf-8")
        assert passport.find(path) is None
        with pytest.raises(InputError, match=r"passport\.json is no "):
            passport.read(path)
    written(path, {"target": "cpu"})  # not tritonkit's, which all have a model
    assert passport.find(path) is None


def test_files_that_are_listed_in_another_way_are_no_files_of_ours() -> None:
    assert ModelPassport.parse_readable({"model": "net", "files": [1]}).files == {}
    assert ModelPassport.parse_readable({"model": "net", "files": {"a": 1}}).files == {"a": "1"}


def test_only_keys_that_were_set_are_written_in_one_order() -> None:
    row = GateRow(precision="fp16", verdict="base", accuracy={"cosine": 1}, seconds=2)
    built = ModelPassport(target="cuda", model="net", gate=Gate(variants=(row,), judged_on=3), tritonkit="1")
    built = built.model_copy(update={"memory": None})
    text = '{"tritonkit": "1", "model": "net", "target": "cuda", "gate": {"judged_on": 3, "variants": [{"precision": '
    text += '"fp16", "verdict": "base", "accuracy": {"cosine": 1}, "seconds": 2}]}, "memory": null}'
    assert json.dumps(built.as_json()) == text
    same = ModelPassport.parse(json.loads(built.to_text({"a": "1"})))
    assert same.is_same_build(built)
    assert not same.is_same_build(built.model_copy(update={"memory": DeviceMemory(session_bytes=1)}))


@pytest.mark.parametrize(
    ("section", "measured", "more"),
    [
        (Measurement, parity.Measurement, []),
        (ForestParity, checks.Parity, []),
        (GateRow, gate.Row, []),
        (DeviceMemory, sized_session.DeviceMemory, []),
        (Queue, queue_limits.QueueLimits, ["at_once"]),
    ],
)
def test_a_section_has_every_field_of_what_it_records(section: type[Section], measured: type, more: list[str]) -> None:
    assert list(section.model_fields) == [field.name for field in dataclasses.fields(measured)] + more
