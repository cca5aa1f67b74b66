"""Set-up: what a machine lacks is reported at once; wheels work without the checkout and without make."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from graphfile import save, value
from onnx import TensorProto, helper

from tritonkit import cli, machine
from tritonkit.errors import MissingError
from tritonkit.server import engine_environment, runtime

NOWHERE = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "https://index.invalid/simple", "UV_DEFAULT_INDEX": "https://index.invalid/simple"}  # fmt: skip
PLAIN = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_", "UV_", "PYTHONPATH"))}  # fmt: skip


def install(root: Path, *options: str | Path, python: str = sys.executable, **variables: str) -> tuple[int, str]:
    """The exit code and the output of `build/install.py`."""
    command = [python, str(root / "build/install.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=PLAIN | variables)
    return done.returncode, done.stdout + done.stderr


def test_without_a_network_setup_says_so_and_not_what_pip_makes_of_it(root: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    status, output = install(root, "--venv", tmp_path / "venv", **NOWHERE)
    assert status == 3
    assert "error: no network: the package index cannot be reached\n  fix: connect this machine" in output
    assert "conflicting" not in output
    assert "Retry" not in output
    assert time.monotonic() - start < 120
    assert "# Without a network" in (root / "docs/guides/install.md").read_text(encoding="utf-8")


def test_without_a_network_the_server_is_not_installed_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITONKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    for name, text in (NOWHERE | {"PIP_RETRIES": "1"}).items():
        monkeypatch.setenv(name, text)
    for environment in (runtime, engine_environment):
        with pytest.raises(MissingError, match="no network") as caught:
            environment.install("cpu")
        assert "HTTPS_PROXY" in caught.value.fix
    assert not list((tmp_path / "home").rglob("complete"))


def test_a_full_disk_is_said_before_anything_is_downloaded(
    root: Path, tmp_path: Path, mounted: Callable[[str], Path]
) -> None:
    place = mounted("size=64m")
    status, output = install(root, "--venv", place / "venv", TRITONKIT_HOME=str(place / "home"), **NOWHERE)
    assert status == 3
    assert f"error: {place / 'venv'} and {place / 'home'} need 5.0 GiB, and the disk has 0.1 GiB free" in output
    assert "fix: free some space, or clone into another disk, or set TRITONKIT_HOME" in output
    assert list(place.iterdir()) == []


def test_the_environment_of_another_checkout_is_left_alone(root: Path, tmp_path: Path) -> None:
    checkout, venv = tmp_path / "other", tmp_path / "other/.venv"
    about = venv / "lib/python3.11/site-packages/tritonkit-1.dist-info"
    about.mkdir(parents=True)
    (checkout / "build").mkdir()
    shutil.copy(root / "build/install.py", checkout / "build")
    origin = {"url": (checkout / "build").as_uri(), "dir_info": {"editable": True}}
    (about / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    (tmp_path / ".venv").symlink_to(venv)
    for path, where, fix in (
        (tmp_path / ".venv", f"{tmp_path / '.venv'} (a link to {venv})", f"rm {tmp_path / '.venv'}, then make setup"),
        (venv, str(venv), "name another folder with --venv"),
    ):
        status, output = install(root, "--venv", path, MAKELEVEL="1", **NOWHERE)
        assert status == 2
        assert f"error: {where} is the environment of {checkout}: installing would turn" in output
        assert f"fix: {fix}" in output
    (checkout / "build/install.py").unlink()  # a checkout that is gone, or moved, loses nothing
    assert install(root, "--check", "--venv", venv, **NOWHERE)[0] == 0


def old_pythons() -> list[str]:
    """Older Pythons that are on this machine, by pyenv or under their own names."""
    folders = sorted((Path.home() / ".pyenv/versions").glob("3.[6-9].*")) + sorted(
        Path.home().glob(".pyenv/versions/3.10.*")
    )
    return [str(path / "bin/python3") for path in folders] + list(
        filter(None, map(shutil.which, ("python3.9", "python3.10")))
    )


@pytest.mark.parametrize("maker", [{}, {"MAKELEVEL": "1"}])
def test_an_old_python_is_told_which_newer_one_takes_the_same_command(
    root: Path, maker: dict[str, str], tmp_path: Path
) -> None:
    # Named as it would be on the PATH: the version itself is what runs.
    if not (older := [python for python in old_pythons() if _runs(python)]):
        pytest.skip("no older Python is on this machine")
    (tmp_path / "python3.12").symlink_to(sys.executable)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    for python in older[:2]:
        status, output = install(root, python=python, PATH=path, **maker)
        assert status == 3
        assert "error: Python 3.11 or newer is needed, and " in output
        again = "make setup PYTHON=python3.1" if maker else "fix: python3.1"
        assert again in output, output


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("system", "processor", "libc", "works", "words"),
    [
        ("linux", "x86_64", ("glibc", "2.39"), (True, True), ""),
        ("linux", "x86_64", ("glibc", "2.31"), (True, False), "needs glibc 2.35, and this Linux has 2.31"),
        ("linux", "aarch64", ("glibc", "2.39"), (True, False), "build, lint, publish, deploy and the client work here"),
        ("linux", "x86_64", ("", ""), (False, False), "no glibc (Alpine"),
        ("darwin", "arm64", ("", ""), (False, False), "this is macOS; tritonkit-client runs here"),
        ("win32", "AMD64", ("", ""), (False, False), "this is Windows; tritonkit-client runs here"),
    ],
)
def test_each_system_is_told_what_works_there_and_how_to_get_the_rest(
    system: str, processor: str, libc: tuple[str, str], works: tuple[bool, bool], words: str
) -> None:
    here = machine.support(system, processor, libc)
    assert (here.commands, here.server) == works
    assert words in here.problem
    assert bool(here.fix) is not all(works)
    assert "make " not in here.fix


def test_another_system_is_refused_by_every_command_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = machine.support("darwin", "arm64", ("", ""))
    monkeypatch.setattr(machine, "support", lambda: other)
    assert cli.main(["lint"]) == 3
    assert capsys.readouterr().err.startswith("error: tritonkit runs on Linux, and this is macOS")
    with pytest.raises(MissingError, match="macOS"):
        runtime.find()


def test_a_package_without_a_matching_version_is_no_missing_network() -> None:
    output = "ERROR: Could not find a version that satisfies the requirement torch==9 (from versions: 1, 2)\nERROR: No matching distribution found for torch==9"
    assert machine.explain_installer(output)[0].startswith("the package index has no such version")
    assert machine.explain_installer("ERROR: something else")[0] == "ERROR: something else"


def test_a_folder_without_the_package_is_not_called_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    output = "ERROR: No matching distribution found for torch==9 (from versions: none)"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/srv/packages")
    meaning, fix = machine.explain_installer(output)
    assert meaning == "PIP_NO_INDEX is set, and the package is not in PIP_FIND_LINKS (/srv/packages)"
    assert "Without a network" in fix
    monkeypatch.delenv("PIP_NO_INDEX")
    assert machine.explain_installer(output)[0].startswith("no network")


def test_wheels_outside_the_checkout_init_build_and_lint_without_make(root: Path, tmp_path: Path) -> None:
    """The packages come from this environment, and tritonkit itself from its wheel alone: no checkout is on any path."""
    wheels, venv, work = tmp_path / "wheels", tmp_path / "venv", tmp_path / "work"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = [str(root / "build"), str(root / "clients"), str(root / "loadtests")]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", wheels, *built], check=True, capture_output=True)
    assert sorted(path.name.partition("-")[0] for path in wheels.iterdir()) == [
        "tritonkit",
        "tritonkit_client",
        "tritonkit_load",
    ]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = str(venv / "bin/python")
    subprocess.run([*pip, "--python", python, "install", "--quiet", "--no-deps", *wheels.iterdir()], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", encoding="utf-8")

    def run(*words: str) -> str:
        done = subprocess.run([venv / "bin" / words[0], *words[1:]], cwd=work, capture_output=True, text=True, check=False, env=PLAIN)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run([python, "-c", "import tritonkit, tritonkit_client as c, tritonkit_load as l; print(tritonkit.__file__, c.__file__, l.__file__)"],
                           cwd=work, capture_output=True, text=True, check=True, env=PLAIN).stdout  # fmt: skip
    assert where.count(str(site)) == 3
    shapes = [value(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    save(work / "tiny.onnx", [helper.make_node("Relu", ["x"], ["y"])], shapes[:1], shapes[1])
    assert "examples:" in run("tritonkit", "--help")
    assert "usage: tritonkit-load capacity" in run("tritonkit-load", "capacity", "--help")
    assert run("tritonkit-client", "--version").startswith("tritonkit-client ")
    assert "next: tritonkit build tiny.yaml" in run("tritonkit", "init", "tiny.onnx")
    assert "next: tritonkit serve" in run("tritonkit", "build", "tiny.yaml")
    assert (work / "model_repository/tiny/1/model.onnx").is_file()
    elsewhere = run("tritonkit", "build", "tiny.yaml", "--target", "cuda", "--repository", "for gpus")
    assert "next: tritonkit serve 'for gpus'" in elsewhere, "not the folder beside it"
    if runtime.detect_device() == "cpu":
        assert "where there is a GPU; or tritonkit publish 'for gpus' DESTINATION" in elsewhere
    assert "clean" in run("tritonkit", "lint")
    where_to = {"context": "none", "namespace": "n", "release": "r", "publish": f"file://{work}/store",
                "chart": str(root / "helm/tritonkit")}  # fmt: skip
    values = {"accelerator": {"kind": "cpu"}, "models": {"pvc": {"claimName": "models"}}}
    (work / "prod.yaml").write_text(yaml.safe_dump({"deploy": where_to, "values": values}), encoding="utf-8")
    assert "deploy prod: a dry run, nothing is changed" in run("tritonkit", "deploy", "prod.yaml")
    done = subprocess.run([venv / "bin/tritonkit", "build"], cwd=work, capture_output=True, text=True, check=False, env=PLAIN)  # fmt: skip
    assert done.returncode == 2
    assert "tritonkit init" in done.stderr


def test_what_this_machine_is_counts_as_what_it_can_do() -> None:
    here = machine.support()
    assert here.commands
    assert here.server is (platform.machine() == "x86_64")
