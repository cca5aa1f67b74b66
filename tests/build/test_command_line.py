"""Options and operands in any order, and errors whose advice names commands and options that exist."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tritonkit import cli, recipe
from tritonkit.server import runtime
from tritonkit_load.cli import VERBS as MEASUREMENTS

_RAISED = re.compile(r".*(Error|Failed|Problem|Check)$|_?fix$")
_SOURCES = ("build/src", "clients/src", "helm", "loadtests")
_COMMAND = re.compile(r"(?:^|[`\s(])(tritonkit|make) ([a-z][a-z-]*)((?: [^`;,()]*)?)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
# Of Python's configure and of kubectl; and the placeholder in `--server-arg=--name=value`.
_OTHERS = {"--enable-shared", "--context", "--list", "--name"}


def parsed(line: str) -> dict[str, object]:
    """What the command line makes of a line."""
    return vars(cli._parser().parse_args(shlex.split(line)))


@pytest.mark.parametrize("line", ["serve R --http-port 0 -- --exit-on-error=false", "serve --http-port 0 R -- --exit-on-error=false"])  # fmt: skip
def test_options_may_stand_before_or_after_the_repository(line: str) -> None:
    options = parsed(line)
    assert (options["repository"], options["http_port"], options["rest"]) == (Path("R"), 0, ["--exit-on-error=false"])


def test_the_rest_is_not_taken_for_the_repository() -> None:
    assert parsed("serve -- --log-verbose=1")["repository"] == Path("model_repository")
    assert parsed("serve")["rest"] == []


def test_operands_may_stand_on_both_sides_of_an_option() -> None:
    assert parsed("build a.yaml --overwrite b.yaml --json c.yaml")["recipes"] == [Path(f"{n}.yaml") for n in "abc"]
    assert parsed("rollback s3://b/m --values v.yaml 0123")["version"] == "0123"
    assert parsed("passport a --check b")["models"] == ["a", "b"]
    assert parsed("fetch URI --json DIR")["directory"] == Path("DIR")
    assert parsed("lint -- -odd")["repository"] == Path("-odd")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("serve R --exit-on-error=false", "tritonkit serve: error: unrecognized arguments: --exit-on-error=false; what is"),
        ("build --nope", "tritonkit build: error: unrecognized arguments: --nope"),
        ("fetch a", "the following arguments are required: directory"),
    ],
)  # fmt: skip
def test_what_no_command_takes_is_refused_by_that_command(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(line)
    assert words in capsys.readouterr().err


def commands() -> dict[str, argparse.ArgumentParser]:
    """The commands of `tritonkit`."""
    (verbs,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(verbs.choices)


def advice(root: Path) -> Iterator[tuple[str, str]]:
    """Every text in an error, a finding or a check, with its place; what is filled in stands as X."""
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _RAISED.match(ast.unparse(node.func)):
                    for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                        for text in _texts(argument):
                            yield f"{path.relative_to(root)}:{node.lineno}", text


def pages(root: Path) -> Iterator[tuple[str, str]]:
    """Every text of the modules that say on a page what to do next, with its place; what is filled in stands as X."""
    modules = [
        *(root / "loadtests/src/tritonkit_load/reporting").glob("*advice.py"),
        root / "loadtests/src/tritonkit_load/benchmarks/proofs/page.py",
    ]
    assert len(modules) == 4
    for path in modules:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in parts:
                for text in _texts(node):
                    yield f"{path.relative_to(root)}:{node.lineno}", text


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


def options_of_scripts(root: Path) -> set[str]:
    """What the project's own scripts take."""
    text = "".join(path.read_text(encoding="utf-8") for folder in _SOURCES for path in (root / folder).rglob("*.py"))
    return set(re.findall(r'"(--[a-z][a-z0-9-]+)"', text))


def test_every_command_and_option_that_an_advice_names_exists(root: Path, installed_server: runtime.Runtime) -> None:
    server = subprocess.run(
        [installed_server.binary, "--help"], env=installed_server.environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    known = options_of_scripts(root) | set(_OPTION.findall(server.stdout + server.stderr)) | _OTHERS
    verbs = {name: set(parser._option_string_actions) for name, parser in commands().items()}
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    wrong, checked = [], 0
    for place, text in (*advice(root), *pages(root)):
        wrong += [f"{place}: {option}" for option in _OPTION.findall(text) if option not in known]
        for program, verb, rest in _COMMAND.findall(text):
            quoted = f"`{program} {verb}" in text  # else it may be prose
            if program == "make":
                wrong += [f"{place}: make {verb}"] * (quoted and verb not in targets)
                names = re.findall(r"\b([A-Z_]{2,})=", rest) if quoted else []
                wrong += [f"{place}: make {verb} {name}=" for name in names if name not in variables]
            elif verb in verbs:
                checked += 1
                options = _OPTION.findall(rest.split(" -- ")[0])
                wrong += [f"{place}: tritonkit {verb} {option}" for option in options if option not in verbs[verb]]
            elif quoted:
                wrong.append(f"{place}: tritonkit {verb}")
    assert wrong == []
    assert checked > 20


def test_every_setting_and_script_that_a_page_names_exists(root: Path) -> None:
    values = yaml.safe_load((root / "helm/tritonkit/values.yaml").read_text(encoding="utf-8"))["autoscaling"]
    known = {"batching": set(recipe.Batching.model_fields), "autoscaling": {*values, *values["keda"]}}
    checked = 0
    for place, text in pages(root):
        for section, name in re.findall(r"`(batching|autoscaling)((?:\.[A-Za-z_]+)+)", text):
            checked += 1
            assert set(name[1:].split(".")) <= known[section], place
        for verb in re.findall(r"`tritonkit-load (\w+)", text):
            checked += 1
            assert verb in MEASUREMENTS, place
        for module in re.findall(r"python -m (tritonkit_load\.[\w.]+)", text):
            checked += 1
            assert importlib.util.find_spec(module), place
    assert checked > 10


@pytest.mark.parametrize("name", sorted(commands()))
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_shows_its_help_with_its_operands(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([name, option])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    for action in commands()[name]._get_positional_actions():
        assert action.dest in shown.lower() or str(action.metavar).lower() in shown.lower()
