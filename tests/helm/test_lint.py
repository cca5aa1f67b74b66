"""What can be said of the chart's files without a render: helm's own lint, drift, and that nothing is left over."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import schema
import yaml
from manifests import cases, rendering

from tritonkit.kubetools import binaries

CHART = rendering.CHART
TEMPLATES = sorted(CHART.glob("templates/**/*.yaml"))
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted(CHART.glob("templates/**/*")) if path.is_file())


@pytest.mark.parametrize("example", cases.EXAMPLES, ids=lambda path: path.stem)
def test_helm_lints_every_example_strictly(example: Path) -> None:
    done = subprocess.run(
        [binaries.helm(), "lint", "--strict", "--quiet", CHART, "--values", example, "--kube-version", "1.37.0"],
        capture_output=True,
        text=True,
        check=False,
        env=binaries.rendering_environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_and_readme_are_what_values_yaml_says() -> None:
    assert schema.drift(CHART) == ""


def test_the_readme_has_a_row_for_every_value() -> None:
    table = (CHART / "README.md").read_text(encoding="utf-8").partition(schema.MARKER)[2]
    names = {leaf.name for top in schema.read(CHART / "values.yaml") for leaf in top.leaves()}
    assert {row.split("`")[1] for row in table.splitlines() if row.startswith("| `")} == names


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_makes_one_kind_and_is_named_after_it(template: Path) -> None:
    kinds = set(re.findall(r"^kind: (\w+)", template.read_text(encoding="utf-8"), re.MULTILINE))
    if template.stem == "extra-objects":
        assert not kinds
    else:
        (kind,) = kinds
        short = {"HorizontalPodAutoscaler": "hpa"}.get(kind, kind.lower())
        assert template.stem == short or template.stem.endswith(f"-{short}")


@pytest.mark.parametrize("template", [*TEMPLATES, CHART / "templates/NOTES.txt"], ids=lambda path: path.stem)
def test_a_template_puts_the_default_for_null_before_it_reads_values(template: Path) -> None:
    assert template.read_text(encoding="utf-8").startswith('{{- include "tritonkit.fill" . -}}\n')


def test_every_value_is_used() -> None:
    sources = SOURCES + "".join(path.read_text(encoding="utf-8") for path in CHART.glob("files/*"))

    def used(path: tuple[str, ...]) -> bool:
        section, name = path[-2] if len(path) > 1 else "Values", path[-1]
        return bool(
            re.search(rf"\b{section}\.{name}\b", sources)
            or re.search(rf"(toYaml|omit|include)[^}}]*\.{section}\b", sources)  # handed on whole
            or (
                re.search(rf"\b{section}\b", sources) and re.search(rf"[.\"]{name}\b", sources)
            )  # read in a block of its own
        )

    leaves = [leaf.path for top in schema.read(CHART / "values.yaml") for leaf in top.leaves()]
    assert [".".join(path) for path in leaves if not used(path)] == []


def test_no_helper_is_left_over() -> None:
    defined = set(re.findall(r'define "([^"]+)"', SOURCES))
    included = set(re.findall(r'(?:include|template) "([^"]+)"', SOURCES))
    included |= set(
        re.findall(r'(?:include|template) "([^"]+)"', "\n".join(p.read_text("utf-8") for p in CHART.glob("files/*")))
    )
    built = set(re.findall(r'printf "(tritonkit\.[\w.]*)%s', SOURCES))
    assert {name for name in defined - included if not any(name.startswith(start) for start in built)} == {
        "tritonkit.workloadKeys"
    } & (defined - included)
    assert included - defined == set()


def test_workload_keys_are_values() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(schema.workload_keys(CHART)) <= values.keys()
