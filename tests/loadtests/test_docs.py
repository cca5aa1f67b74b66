"""The commands and examples of docs/guides/loadtests.md run, and its tables are true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tritonkit.server import TritonServer
from tritonkit_load import run
from tritonkit_load.load import arrivals, recording
from tritonkit_load.load.slo import Slo

PAGE = (Path(__file__).parents[2] / "docs/guides/loadtests.md").read_text(encoding="utf-8")
Recipes = Callable[..., Path]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(name: str) -> list[list[str]]:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith(name)]


def test_the_verbs_arguments_are_those_of_a_load_test(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    verbs = commands("make loadtest")
    assert len(verbs) == 3
    plans, targeted = [], []
    for verb in verbs:
        done = subprocess.run([*verb, "--dry-run"], capture_output=True, text=True, check=True, env=plain)
        lines = done.stdout.replace("\\\n", " ").splitlines()
        words = next(shlex.split(line) for line in lines if "tritonkit-load run" in line)
        options = run._parser().parse_args(words[words.index("run") + 1 :])
        paths = run._recipes(options)
        plan = run._plan(options, paths)
        run._check(plan, options, paths.values())
        plans.append(plan)
        targeted.append((options.target, options.repository))
    assert [plan.arrivals for plan in plans] == ["poisson:100", None, None]
    assert [plan.users for plan in plans][1:] == [8, 64]
    assert targeted[2] == ("cuda", None)


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        (
            "loadtest",
            {"MODEL": "my models/it's.yaml", "ARRIVALS": "replay:Mary's day.csv", "SLO": "p99_ms=5, p50_ms=1"},
        ),
        ("capacity", {"MODEL": "my models/it's.yaml", "SLO": "p99_ms=5, p50_ms=1"}),
        ("tune", {"MODEL": "my models/it's.yaml", "BUDGET": "10 m"}),
        ("compare", {"PEERS": "fastapi, mlserver", "MODELS": "a, b"}),
        ("bench", {"MODEL": "my models/it's.yaml"}),
        ("bench-tuning", {"MODEL": "my models/it's.yaml"}),
    ],
)
def test_the_verbs_take_values_with_spaces_and_quotes(root: Path, verb: str, given: dict[str, str]) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    lines = subprocess.run(
        ["make", "--dry-run", verb, *(f"{name}={value}" for name, value in given.items())],
        cwd=root, capture_output=True, text=True, check=True, env=plain,
    ).stdout.replace("\\\n", " ").splitlines()  # fmt: skip
    words = next(
        shlex.split(line) for line in lines if "tritonkit-load " in line or "python -m tritonkit_load." in line
    )
    for name, value in given.items():
        assert words[words.index(f"--{name.lower()}") + 1] == value


def test_the_locust_command_writes_a_result(
    root: Path, server: TritonServer, write_recipe: Recipes, tmp_path: Path
) -> None:
    page, command = commands("locust")
    assert "--headless" not in page
    changed = {
        "loadtests/locustfile.py": str(root / "loadtests/locustfile.py"), "http://127.0.0.1:8000": server.http_url, "30s": "3s",
        "build/recipes/efficientnet_lite0.yaml": str(write_recipe("sleep")), "poisson:100": "poisson:20",
        "p99_ms=50": "p99_ms=9000",
    }  # fmt: skip
    assert set(changed) <= set(command)
    words = [changed.get(word, word) for word in command[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "locust", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert (tmp_path / "result.json").exists(), done.stderr
    assert "SLO met" in done.stdout


def test_the_python_example_runs(
    server: TritonServer, write_recipe: Recipes, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    code = code.replace("grpc://127.0.0.1:8001", server.grpc_url).replace("duration_s=2", "duration_s=0.6")
    exec(code.replace("build/recipes/efficientnet_lite0.yaml", str(write_recipe("arithmetic"))), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["20", "40"]


def test_every_schedule_of_the_table_is_one_and_none_is_missing(tmp_path: Path) -> None:
    recording.write_rows(tmp_path / "FILE.csv", [(0.5, 1.0, 1.0, "m", ""), (1.0, 1.0, 1.0, "m", "")])
    named = re.findall(r"^\| `(\w+:[^`]+)` \|", PAGE, re.MULTILINE)
    kinds = {arrivals.parse(text.replace("FILE.csv", str(tmp_path / "FILE.csv"))).kind for text in named}
    assert kinds == {form.partition(":")[0] for form in re.findall(r"\w+:\S+", arrivals.FORMS)}
    assert len(kinds) == 6


def test_the_slo_of_the_page_is_one_and_every_key_is_explained() -> None:
    (text,) = blocks("yaml")
    Slo.model_validate(yaml.safe_load(text)["slo"])
    assert all(f"`{name}`" in PAGE for name in Slo.model_fields)


def test_every_option_of_the_table_is_one(root: Path) -> None:
    options = set(re.findall(r"^\| `(--[\w-]+)` \|", PAGE, re.MULTILINE))
    source = (root / "loadtests/src/tritonkit_load/load/coordination.py").read_text(encoding="utf-8")
    assert len(options) == 5
    assert options <= set(re.findall(r'"(--[\w-]+)"', source))
