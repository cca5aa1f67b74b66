"""Broken repositories, and folders that are none: lint reports them and never crashes."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from onnx import TensorProto

from tritonkit.errors import CheckFailed, OutputError
from tritonkit.repository import lint
from tritonkit.repository.lint import RULES, contents, pbtxt
from tritonkit.server import TritonServer

from .cases import CASES
from .lab import BATCHED, IDENTITY, PARTS, XY, Files, load, onnx_model, python, relu, write

NOBODY = 65534


def list_findings(place: Path, **models: Files) -> list[tuple[str, str, int | None]]:
    """Model, rule and line of everything that lint says of a repository."""
    for name, files in models.items():
        write(place / name, files)
    return [(finding.model, finding.rule, finding.line) for finding in lint.check(place).findings]


def test_a_folder_as_configuration_is_an_error_and_ends_the_server(tmp_path: Path) -> None:
    place = tmp_path / "repository"
    bad: Files = {"1/model.py": IDENTITY, "config.pbtxt": None}
    assert list_findings(place, m=bad) == [("m", "TK016", None)]
    with TritonServer(place, arguments=["--model-control-mode=explicit"], exit_timeout_s=0) as server:
        with pytest.raises(ConnectionError):
            load(server, "m", 10)
        assert server.wait() != 0


def test_links_in_a_circle_are_survived(tmp_path: Path) -> None:
    write(tmp_path / "m", python())
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "m/1/inside").symlink_to("..")
    (tmp_path / "n").mkdir()
    (tmp_path / "n/config.pbtxt").symlink_to("config.pbtxt")
    (tmp_path / "n/1").symlink_to(".")
    findings = [(finding.model, finding.rule) for finding in lint.check(tmp_path).findings]
    assert findings == [("circle", "TK001"), ("n", "TK016")]


@pytest.mark.parametrize("target", ["nowhere", "old"], ids=["nothing", "itself"])
def test_a_dead_link_beside_the_models_is_an_error_and_no_model_loads(target: str, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    write(place / "m", python())
    (place / "old").symlink_to(target)
    (finding,) = lint.check(place).findings
    assert (finding.model, finding.rule) == ("old", "TK001")
    assert "loads no model at all" in finding.message
    with pytest.raises(CheckFailed, match="failed to poll model repository"), TritonServer(place, exit_timeout_s=0):
        pass


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own may not be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's right to read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("config.pbtxt", {"TK016"}),
        ("1/model.onnx", {"TK012"}),
        ("1", {"TK011"}),
        (".", {"TK001"}),
        ("labels.txt", {"TK016"}),
        ("warmup/x", {"TK016"}),
    ],
)
def test_what_may_not_be_read_is_a_finding(name: str, rules: set[str], open_place: Path) -> None:
    config = BATCHED + XY.replace("FP32", "STRING").replace('"y"', '"y" label_filename: "labels.txt"') + (
        'model_warmup { name: "w" batch_size: 1 inputs { key: "x" '
        'value { data_type: TYPE_STRING dims: 4 input_data_file: "x" } } }\n'
    )  # fmt: skip
    graph = relu("N", 4, dtype=TensorProto.STRING)
    write(open_place / "m", onnx_model(config, graph, warmup__x=bytes(16)) | {"labels.txt": "a\nb\nc\nd\n"})
    assert lint.check(open_place).findings == ()
    (open_place / "m" / name).chmod(0)
    with unprivileged():
        findings = lint.check(open_place).findings
    (open_place / "m" / name).chmod(0o755)
    assert {finding.rule for finding in findings} == rules


def test_a_model_file_under_the_configurations_name_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "m", python())
    with (tmp_path / "m/config.pbtxt").open("wb") as file:
        file.truncate(contents.MAX_CONFIG_BYTES + 1)
    (finding,) = lint.check(tmp_path).findings
    assert (finding.rule, finding.message) == ("TK016", "the configuration has 4,194,305 bytes")


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"\xff\xfe\x00", None, "is not text in UTF-8"),
        (b"\x00" * 1000, 1, "text format"),
        (b"{" * 5000, 1, "text format"),
        (b'name: "m"\nmax_batch_size: 4\ninput {\n  name: "x"\n', 4, "text format"),
        (b'\n\ninput { name: "x" dimensions: 4 }', 3, "a ModelInput has no field 'dimensions'"),
        (b'input {\n name: "x"\n data_type: FP32 }', 3, "'FP32' is no DataType"),
        (b'name: "m"\nname: "m"', 2, "name is given twice"),
        (b"max_batch_size: 99999999999", 1, "text format"),
    ],
)
def test_what_is_no_configuration_is_one_error_with_its_line(
    content: bytes, line: int | None, says: str, tmp_path: Path
) -> None:
    write(tmp_path / "m", python() | {"config.pbtxt": content})
    (finding,) = lint.check(tmp_path).findings
    assert finding.rule in {"TK002", "TK016"}
    assert finding.line == line
    assert says in finding.message
    assert finding.message.isprintable()


def test_a_misspelt_field_is_met_with_the_nearest_that_exists(tmp_path: Path) -> None:
    write(tmp_path / "m", python(BATCHED + XY + "dynamic_batching { prefered_batch_size: 4 }\n"))
    (finding,) = lint.check(tmp_path).findings
    assert (finding.fix, finding.line) == ("did you mean preferred_batch_size?", 6)


def test_random_changes_never_crash_lint(tmp_path: Path) -> None:
    """Bytes of any file are changed, dropped and doubled; whatever can still be read goes through every rule."""
    dice = random.Random(0)
    for part, files in PARTS.items():
        write(tmp_path / part, files)
    read = 0
    for number in range(400):
        _, data = changed(dice, dict(dice.choice(CASES).good))
        write(tmp_path / f"m{number}", data)
        report = lint.check(tmp_path)
        read += not any(finding.rule in {"TK002", "TK012", "TK016"} for finding in report.findings)
        shutil.rmtree(tmp_path / f"m{number}")
    assert read > 100


def changed(dice: random.Random, files: Files) -> tuple[str, Files]:
    """A model with a few bytes of one file changed."""
    name = dice.choice([name for name, content in files.items() if isinstance(content, str | bytes) and content])
    content = files[name]
    assert isinstance(content, str | bytes)
    data = bytearray(content.encode() if isinstance(content, str) else content)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data) + 1)
        data[at : at + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 2))
    return name, files | {name: bytes(data)}


def test_garbage_beside_models_is_survived(tmp_path: Path) -> None:
    """Random bytes as passports, graphs, plans and sources."""
    noise = random.Random(1).randbytes(2000)
    onnx: Files = {"config.pbtxt": 'backend: "onnxruntime"', "1/model.onnx": noise, "passport.json": noise}
    trt: Files = {"config.pbtxt": 'backend: "tensorrt"', "1/model.plan": noise, "1/model.plan.json": "[" * 100_000}
    code: Files = {"config.pbtxt": 'backend: "python"', "1/model.py": b"\x00" + noise}
    shapes: Files = {"config.pbtxt": 'backend: "tensorrt"', "1/model.plan": b"x",
                     "1/model.plan.json": '{"profiles": [{"x": {"min": [], "max": "no"}}, 3], "layers": 4, "plan_bytes": "x"}'}  # fmt: skip
    rules = {(model, rule) for model, rule, _ in list_findings(tmp_path, onnx=onnx, trt=trt, code=code, shapes=shapes)}
    assert rules == {("onnx", "TK012"), ("onnx", "TK094"), ("trt", "TK094"), ("code", "TK120")}


def test_an_empty_repository_has_no_models(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing yet", encoding="utf-8")
    assert (lint.check(tmp_path).models, lint.check(tmp_path).findings) == (0, ())


def test_a_place_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m", python())
    with pytest.raises(OutputError, match="is not a directory"):
        lint.check(tmp_path / "m/config.pbtxt")
    with pytest.raises(OutputError, match="is a model's folder") as caught:
        lint.check(tmp_path / "m")
    assert str(tmp_path) in caught.value.fix


def test_ids_in_a_comment_switch_rules_off_and_useless_ones_are_told(tmp_path: Path) -> None:
    queue = (
        BATCHED
        + XY
        + 'dynamic_batching {}\ninstance_group { count: 1 kind: KIND_CPU }\nparameters { key: "# tritonkit: ignore" value {} }\n'
    )
    assert list_findings(tmp_path / "a", m=python(queue)) == [("m", "TK052", 6)]
    assert list_findings(tmp_path / "b", m=python(f"# tritonkit: ignore TK052\n{queue}")) == []
    assert list_findings(tmp_path / "c", m=python(f"# tritonkit: ignore\n{queue}")) == []
    assert list_findings(tmp_path / "d", m=python(f"{queue}# tritonkit: ignore TK052, TK053\n")) == [("m", "TK190", 9)]
    (finding,) = lint.check(tmp_path / "d").findings
    assert (finding.severity, finding.message) == ("info", "TK053 finds nothing here")
    write(tmp_path / "e/m", python(f"# tritonkit: ignore TK052 TK999\n{queue}"))
    (finding,) = lint.check(tmp_path / "e").findings
    assert (finding.severity, finding.message) == ("warning", "there is no rule TK999")


def test_the_outline_finds_each_field_in_every_way_of_writing_it() -> None:
    text = (
        'input [ { name: "a", dims: [ 1,\n 2 ] },\n{ name: "b" dims: 3 dims: 4 } ]\n'
        "input < name: 'c'; dims: 5 > # input { }\n"
        'parameters: { key: "k" "ey"\n value: { string_value: "v" } }\n'
    )
    outline = pbtxt.outline(text)
    assert outline.line_of(("input", 0), ("dims", 1)) == 2
    assert outline.line_of(("input", 1), ("dims", 1)) == 3
    assert outline.line_of(("input", 2), "dims") == 4
    assert outline.line_of(("input", 3), "dims") is None
    assert outline.line_of(("parameters", "key"), "value", "string_value") == 6
    assert outline.line_of(("input", 1), "reshape") == 3
    assert set(RULES) >= {"TK001"}
