"""Help that shows examples, errors that suggest what was meant, completion, and `--version`, of every command line."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forestfile import xgboost
from graphfile import save, value
from onnx import TensorProto, helper
from support import Project

import tritonkit_load.cli
from tritonkit import __version__, cli
from tritonkit.cli.arguments import Parser

ROOT = Path(__file__).parents[2]
# How a person starts it, and its module.
_BENCHES = ("autoscaler", "client", "drain", "generator", "gpu", "llm", "overload", "serving", "trees", "tuning")
SCRIPTS = {
    **{f"tritonkit-load {verb}": f"tritonkit_load.{verb}" for verb in ("run", "capacity", "tune", "compare")},
    **{f"python -m {module}": module
       for module in ("tritonkit_load.demo", "tritonkit_load.demo_llm",
                      *(f"tritonkit_load.benchmarks.bench_{name}" for name in _BENCHES))},
    "python helm/schema.py": "schema",
}  # fmt: skip
MODULE = """
import torch
def load():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8, 8), torch.nn.Flatten())
"""
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def commands() -> dict[str, Parser]:
    """Every command of `tritonkit`; the command line itself has the empty name."""
    parser = cli._parser()
    assert parser._subparsers is not None
    (verbs,) = parser._subparsers._group_actions
    return {"": parser, **dict(verbs.choices or {})}


def words_of(example: str) -> list[str]:
    """What a shell makes of an example's command, without redirection and `eval`."""
    inner = re.fullmatch(r'eval "\$\((.*)\)"', example)
    return shlex.split((inner[1] if inner else example).partition(" > ")[0])


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_an_example_that_it_understands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = commands()[name]
    assert command.examples
    shown = command.format_help()
    for example in command.examples:
        assert f"\n  {example}\n" in shown
        program, verb, *rest = words_of(example)
        assert (program, verb) == ("tritonkit", name or verb)
        assert callable(cli._parser().parse_args([verb, *rest]).command)


def test_examples_that_need_only_a_model_run_as_they_stand(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.directory)
    shapes = [value(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    save(project.directory / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])], shapes[:1], shapes[1])
    (project.directory / "my_model.py").write_text(MODULE)
    (project.directory / "churn.ubj").write_text(xgboost(3, 0, 0))  # its format is told from its bytes
    examples = [example for name in ("init", "build", "lint", "passport") for example in commands()[name].examples]
    assert len(examples) > 7
    for example in examples:
        if "cuda" in example or "precision" in example:
            continue
        status, out, err = project.run(*words_of(example)[1:])
        assert status == 0, f"{example}\n{out}{err}"
    assert {path.name for path in project.directory.glob("model_repository/*")} == {"my_model"}


@pytest.mark.parametrize("start", SCRIPTS)
def test_every_script_has_examples_and_a_version(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = importlib.import_module(SCRIPTS[start])._parser()
    assert isinstance(parser, Parser)
    assert parser.examples
    for example in parser.examples:
        before, _, rest = example.partition(start)
        assert before == ""
        parser.parse_args(shlex.split(rest))
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["--version"])
    assert capsys.readouterr().out == f"tritonkit {__version__}\n"


def test_no_script_of_a_verb_is_left_out(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    started = {f"python -m {module}" for module in re.findall(r"-m (tritonkit_load\.[\w.]+)", makefile)}
    started |= {f"tritonkit-load {verb}" for verb in re.findall(r"/tritonkit-load (\w+)", makefile)}
    started |= {f"python {script}" for script in re.findall(r" (helm/\w+\.py)", makefile)}
    assert started == set(SCRIPTS)


def test_the_command_of_load_tests_lists_its_verbs_and_suggests_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        tritonkit_load.cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {verb:<10}{text}" in shown for verb, text in tritonkit_load.cli.VERBS.items())
    for example in tritonkit_load.cli._parser().examples:
        assert example in shown
    with pytest.raises(SystemExit, match="2"):
        tritonkit_load.cli.main(["capasity"])
    assert "did you mean capacity?" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["before"])
    with pytest.raises(SystemExit, match="0"):
        tritonkit_load.cli.main(["capacity", "--help"])
    assert "usage: tritonkit-load capacity [-h]" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["", *sorted(set(commands()) - {""})])
def test_every_command_says_its_version(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*filter(None, [verb]), "--version"])
    assert capsys.readouterr().out == f"tritonkit {__version__}\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tritonkit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tritonkit {__version__}\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("buidl a.yaml", "; did you mean build?"),
        ("--verison", "unrecognized arguments: --verison; did you mean --version?"),
        ("--json doctor", "unrecognized arguments: --json; the options of a command stand after it"),
        ("build --overwirte a.yaml", "--overwirte; did you mean --overwrite?"),
        ("build a.yaml --precison=fp16", "--precison=fp16; did you mean --precision?"),
        ("build a.yaml --target cud", "; did you mean cuda?"),
        ("publish --vlaues x", "--vlaues; did you mean --values?"),  # and not: the destination is required
        ("serve --htpp-port 1", "--htpp-port; did you mean --http-port?; what is meant for the server itself goes after --"),
        ("completion bahs", "; did you mean bash?"),
        ("build --frobnicate a.yaml", "unrecognized arguments: --frobnicate\n"),
    ],
)  # fmt: skip
def test_a_misspelt_word_is_answered_with_the_nearest_that_there_is(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(shlex.split(line))
    assert words in capsys.readouterr().err


def test_scripts_name_the_option_that_was_meant_not_a_missing_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("tritonkit_load.run")._parser().parse_args(["--modle", "x"])
    assert "unrecognized arguments: --modle; did you mean --model?" in capsys.readouterr().err


def make(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=root, capture_output=True, text=True, check=False, env=PLAIN)


def test_make_help_has_a_valid_example_for_every_verb_with_variables(root: Path) -> None:
    lines = make(root, "help").stdout.splitlines()
    examples = {}
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if verb := re.match(r"  make ([a-z-]+) +(.*)", line):
            example = following.strip().removeprefix("$ ") if following.strip().startswith("$ ") else ""
            assert example or not re.search(r"\b[A-Z]+=", verb[2]), line
            if example:
                examples[verb[1]] = example
    assert len(examples) > 10
    for name, example in examples.items():
        words = shlex.split(example)
        assert words[:2] == ["make", name]
        done = make(root, "--dry-run", *words[1:])
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["loadtset"], "error: there is no verb loadtset; did you mean loadtest?\n"),
        (["qqqq"], "error: there is no verb qqqq; `make help` lists what there is\n"),
        (["help", "MODLE=x"], "there is no variable MODLE; did you mean MODEL?"),
        (["help", "env=prod"], "there is no variable env; did you mean ENV?"),
    ],
)
def test_make_suggests_verbs_and_variables_and_does_nothing(root: Path, words: list[str], answer: str) -> None:
    done = make(root, *words)
    assert done.returncode == 2
    assert answer in done.stderr
    assert done.stdout == ""


def test_a_room_that_is_not_there_runs_nothing(root: Path) -> None:
    done = make(root, "test", "ROOM=clint")
    assert done.returncode == 2
    assert "error: there is no room clint; did you mean clients?\n" in done.stderr
    assert "test session" not in done.stdout


def test_make_takes_every_variable_that_it_has(root: Path) -> None:
    names = re.findall(r"^([A-Z_]+) \?=", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "WARM_UP" in names
    done = make(root, "--dry-run", "help", *(f"{name}=1" for name in names))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("program", "line", "replies"),
    [
        ("tritonkit", "bui", {"build"}),
        ("tritonkit", "build --over", {"--overwrite"}),
        ("tritonkit", "build --target cu", {"cuda"}),
        ("tritonkit", "lint model_rep", {"model_repository"}),
        ("tritonkit_client", "heal", {"health"}),
        ("tritonkit_client", "infer --sav", {"--save"}),
    ],
)
def test_bash_completes_commands_options_choices_and_files(
    program: str, line: str, replies: set[str], tmp_path: Path
) -> None:
    script = subprocess.run([sys.executable, "-m", program, "completion", "bash"], capture_output=True, text=True, check=True)  # fmt: skip
    (tmp_path / "model_repository").mkdir()
    words = [program.replace("_", "-"), *line.split()]
    bash_code = f"""{script.stdout}
function=$(complete -p {words[0]} | sed -E 's/.*-F ([^ ]+).*/\\1/')
COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
$function {words[0]} {words[-1]} {words[-2]}; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", bash_code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == replies, done.stderr
