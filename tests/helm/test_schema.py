"""The comments of a values.yaml become a schema that lets through what they say and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schema

from tritonkit.errors import InputError

VALUES = """\
# -- Name
name: ""
server:
  # -- Port
  # @schema {"minimum": 1024}
  port: 8000
  # -- Mode
  # @schema {"enum": ["off", "on"]}
  mode: "off"
# -- Kubernetes resources
# @schema {"is": "resources"}
resources: {limits: {memory: 1Gi}}
# -- Labels
# @schema {"is": "labels"}
labels: {}
# -- More
extra: []
# -- Grace
# @schema {"type": ["integer", "null"]}
grace: null
# -- A parent chart's
global: {}
# -- Variants
variants: {}
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/_keys.tpl").write_text('{{ define "tritonkit.workloadKeys" -}}\nserver labels\n{{- end }}')
    (tmp_path / "values.yaml").write_text(VALUES)
    (tmp_path / "README.md").write_text(f"# A chart\n\n{schema.MARKER}\n")
    return tmp_path


def accepts(chart: Path, values: dict[str, Any]) -> bool:
    json_schema = json.loads(schema.generated(chart)[chart / "values.schema.json"])
    return bool(jsonschema.Draft7Validator(json_schema).is_valid(values))


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({}, True),
        ({"server": {"port": 9000, "mode": "on"}, "grace": None, "extra": [{"any": "thing"}]}, True),
        ({"global": {"any": "thing"}}, True),
        ({"nmae": "a"}, False),
        ({"server": {"prot": 1}}, False),
        ({"server": {"port": "9000"}}, False),
        ({"server": {"port": 80}}, False),
        ({"server": {"mode": "of"}}, False),
        ({"name": 1}, False),
        ({"name": "a\nb"}, False),
        ({"extra": ["a"]}, False),
        ({"grace": "1"}, False),
        ({"labels": {"a.example/b": "c"}}, True),
        ({"labels": {"a": 1}}, False),
        ({"labels": {"a b": "c"}}, False),
        ({"resources": {"limits": {"memory": "2Gi", "nvidia.com/gpu": 1}}}, True),
        ({"resources": {"limits": {"memory": "2GB"}}}, False),
        ({"resources": {"limit": {}}}, False),
        ({"variants": {"a": {"server": {"port": 9000}, "labels": {}}}}, True),
        ({"variants": {"a": {"name": "b"}}}, False),
        ({"variants": {"a": {"server": {"port": 80}}}}, False),
    ],
)
def test_the_schema_takes_what_the_comments_allow(chart: Path, values: dict[str, Any], good: bool) -> None:
    assert accepts(chart, values) is good


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a: 1", "a has no description"),
        ("# -- A\na: null", "does not say what may stand there"),
        ('# -- A\n# @schema {"enum": [}\na: 1', "@schema of a"),
        ('# -- A\n# @schema {"is": "nmae"}\na: x', "nmae is none of"),
    ],
)
def test_a_value_that_says_too_little_is_refused_with_its_line(chart: Path, line: str, message: str) -> None:
    values = chart / "values.yaml"
    values.write_text(f"{VALUES}{line}\n")
    with pytest.raises(InputError, match=message) as refused:
        schema.generated(chart)
    assert f"values.yaml:{len(values.read_text().splitlines())}" in str(refused.value)


def test_drift_is_shown_and_mended(chart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["--check", "--chart", str(chart)]) == 1
    assert "+| `server.port` | `8000` | Port |" in capsys.readouterr().out
    assert schema.main(["--chart", str(chart)]) == 0
    assert schema.main(["--check", "--chart", str(chart)]) == 0
    (chart / "values.yaml").write_text(VALUES.replace("-- Port", "-- Another port"))
    assert schema.main(["--check", "--chart", str(chart)]) == 1
    (chart / "README.md").write_text("no marker")
    assert schema.main(["--chart", str(chart)]) == 2


def test_the_table_says_the_choices_and_escapes_bars(chart: Path) -> None:
    (chart / "values.yaml").write_text(VALUES.replace("-- Mode", "-- This | that"))
    (row,) = (row for row in schema.generated(chart)[chart / "README.md"].splitlines() if "server.mode" in row)
    assert row == '| `server.mode` | `"off"` | This \\| that. One of `off`, `on` |'


def test_the_table_says_true_as_yaml_does() -> None:
    (row,) = (
        row for row in (schema.CHART / "README.md").read_text("utf-8").splitlines() if "| `models.fetch` |" in row
    )
    assert "One of `auto`, `true`, `false` |" in row
