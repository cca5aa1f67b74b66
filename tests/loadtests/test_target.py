"""What models run on: the verbs' target and its repository, and what reports say of GPUs and instances."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tritonkit.errors import InputError, MissingError
from tritonkit.server import TritonServer, runtime
from tritonkit_load import capacity, demo, run, tune
from tritonkit_load.load import environment, models, target
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.plan import Plan

Recipes = Callable[..., Path]
VERBS = ("demo", "build", "serve", "loadtest", "capacity", "tune", "compare")
LISTING = """\
0, GPU-1111, NVIDIA H200
1, GPU-2222, NVIDIA H200
2, GPU-3333, NVIDIA L4, an odd name
"""


def dry_run(root: Path, *words: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=plain)
    return done.stdout.replace("\\\n", " ")


def test_users_beside_arrivals_reach_the_load_test_which_refuses_them(root: Path) -> None:
    both = dry_run(root, "loadtest", "ARRIVALS=poisson:10", "USERS=8")
    assert "--arrivals 'poisson:10'" in both
    assert "--users '8'" in both
    assert "--users" not in dry_run(root, "loadtest", "ARRIVALS=poisson:10")  # a default contradicts nothing
    assert "--users '8'" in dry_run(root, "loadtest")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_verb_of_the_front_door_follows_the_target(root: Path, verb: str, kind: target.Target) -> None:
    lines = dry_run(root, verb, f"TARGET={kind}").splitlines()
    repository = str(target.REPOSITORIES[kind])
    measures = verb in {"loadtest", "capacity", "compare"}  # these build what they serve for the occasion
    commands = [
        shlex.split(line)
        for line in lines
        if re.search(r"tritonkit-load |-m tritonkit_load\.|tritonkit (build|serve)", line)
    ]
    assert commands
    for words in commands:
        if "serve" in words:
            assert words[-1] == repository
        else:
            assert words[words.index("--target") + 1] == kind
            assert measures or words[words.index("--repository") + 1] == repository
    assert ("--repository" in dry_run(root, verb, f"TARGET={kind}")) is not measures
    assert "--repository 'mine'" in dry_run(root, verb, f"TARGET={kind}", "REPOSITORY=mine")
    if verb != "demo" and not measures:
        assert f"target: {kind}, repository: {repository}" in "\n".join(lines)


def test_the_target_is_the_cpu_where_there_is_no_driver(root: Path) -> None:
    assert f"--target '{runtime.detect_device()}'" in dry_run(root, "loadtest")


@pytest.mark.parametrize("module", [run, capacity, tune], ids=lambda module: module.__name__)
def test_a_verb_called_without_make_has_the_same_target_and_repository(module: ModuleType) -> None:
    options = module._parser().parse_args(["--model", "net"])
    assert options.repository is None
    assert target.resolve(options) == target.supported(None) == runtime.detect_device()
    assert options.repository == target.REPOSITORIES[runtime.detect_device()]
    named = module._parser().parse_args(["--model", "net", "--target", "cpu", "--repository", "mine"])
    assert (target.resolve(named), named.repository) == ("cpu", Path("mine"))


MEASURING = ("loadtest", "capacity", "tune", "compare", "bench", "bench-llm", "bench-tuning", "bench-overload")


@pytest.mark.parametrize("verb", MEASURING)
def test_every_measuring_verb_takes_a_recipe_file_and_builds_only_it(root: Path, verb: str) -> None:
    output = dry_run(root, verb, "MODEL=my models/net.yaml")
    assert "'my models/net.yaml'" in output
    assert "tritonkit build" not in output


def test_build_and_serve_take_one_too_and_serve_hands_options_to_triton(root: Path) -> None:
    output = dry_run(root, "serve", "MODEL=nets/net.yaml", "OPTIONS=--model-control-mode=poll --repository-poll-secs=1")
    assert "tritonkit build 'nets/net.yaml' " in output
    assert (
        "tritonkit serve 'model_repository' --recipe 'nets/net.yaml' -- --model-control-mode=poll --repository-poll-secs=1"
        in output
    )
    assert "tritonkit build 'build/recipes/net.yaml' " in dry_run(root, "build", "MODEL=net")


def test_what_is_no_recipe_is_said_with_those_that_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for named, path in (("clf", "build/recipes/clf.yaml"), ("a/clf", "a/clf"), ("clf.yml", "clf.yml")):
        with pytest.raises(InputError, match=f"there is no recipe {path}\n.*MODEL=path/to.yaml.*efficientnet_lite0"):
            models.recipe_path(named)
    assert models.recipe_path("efficientnet_lite0") == models.RECIPES / "efficientnet_lite0.yaml"


def test_a_cuda_target_without_a_driver_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write_recipe: Recipes
) -> None:
    monkeypatch.setattr(runtime, "detect_device", lambda: "cpu")
    arguments = ["--model", str(write_recipe("sleep")), "--target", "cuda"]
    for module, more in ((run, []), (capacity, ["--slo", "p99_ms=50"]), (tune, ["--slo", "p99_ms=50"])):
        monkeypatch.setattr("sys.argv", [module.__name__, *arguments, *more])
        assert module.main() == MissingError.exit_code == 3
        assert "no NVIDIA driver" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["demo.py", "--target", "cuda"])
    assert demo.main() == 3


def test_a_build_for_cuda_touches_nothing_that_git_has(root: Path) -> None:
    paths = [f"{target.REPOSITORIES['cuda']}/net/{name}" for name in ("config.pbtxt", "1/model.onnx")]
    ignored = subprocess.run(["git", "check-ignore", *paths], cwd=root, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == paths


def test_gpus_are_named_as_far_as_they_are_visible() -> None:
    assert environment.visible(LISTING, None) == ["NVIDIA H200", "NVIDIA H200", "NVIDIA L4, an odd name"]
    assert environment.visible(LISTING, "1") == ["NVIDIA H200"]
    assert environment.visible(LISTING, "GPU-3333, 0") == ["NVIDIA L4, an odd name", "NVIDIA H200"]
    assert environment.visible(LISTING, "") == []
    assert environment.visible("No devices were found\n", None) == []


def test_a_driver_without_nvidia_smi_is_a_gpu_of_unknown_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "detect_device", lambda: "cuda")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.machine()["gpu"] == "NVIDIA, of unknown model"
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!{shutil.which('sh', path=os.defpath)}\necho '0, GPU-1, NVIDIA H200'\n", encoding="utf-8")
    smi.chmod(0o755)
    assert environment.machine()["gpu"] == "NVIDIA H200"


def test_instances_in_words() -> None:
    on_two = {"instance_group": [{"kind": "KIND_GPU", "count": 4, "gpus": [0, 1]}]}
    assert environment.instances(on_two) == "4 on GPU 0, 4 on GPU 1"
    assert environment.instances({"instance_group": [{"kind": "KIND_CPU", "count": 2}]}) == "2 on CPU"
    assert environment.instances({}) == ""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_says_where_its_instances_run(server: TritonServer, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    assert environment.triton(url, ["arithmetic"])["instances"] == "1 on CPU"
    both = environment.triton(url, ["arithmetic", "absent", "sleep"])["instances"]
    assert both == "arithmetic: 1 on CPU; sleep: 1 on CPU"


def test_a_load_tests_report_says_where_instances_ran(server: TritonServer, write_recipe: Recipes) -> None:
    with Generator(server.grpc_url, recipes=[write_recipe("arithmetic")]) as generator:
        assert generator.run(Plan(users=1, duration_s=0.2, warm_up_s=0)).environment["instances"] == "1 on CPU"
