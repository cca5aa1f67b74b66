"""docs/guides/python.md as a reader types it, against the real server; and the errors of functions that do not fit."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Project

from tritonkit.server import TritonServer
from tritonkit.server.runtime import Runtime, packages_of
from tritonkit.zoo.photographs import photograph
from tritonkit_client import Client, InvalidInput

PAGE = (Path(__file__).parents[2] / "docs/guides/python.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, and its first command."""
    place = tmp_path_factory.mktemp("python")
    (place / "photo.yaml").write_text(block("yaml"), encoding="utf-8")
    (place / "photo.py").write_text(block("python"), encoding="utf-8")
    photograph("skimage.data", "coffee.png").save(place / "photo.jpg", quality=90)
    build, install, serve = block("bash").splitlines()
    assert serve == "tritonkit serve"
    for command in (build, install):
        program, *arguments = shlex.split(command, comments=True)
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TritonServer]:
    with TritonServer(folder / "model_repository", exit_timeout_s=1) as running:
        yield running


def shown() -> str:
    """What the page prints under its command."""
    return block("console").splitlines()[1]


def curl(server: TritonServer, folder: Path) -> str:
    command = block("console").splitlines()[0].removeprefix("$ ").replace("http://127.0.0.1:8000", server.http_url)
    return subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_curl_sends_a_photograph_and_gets_what_the_page_shows(server: TritonServer, folder: Path) -> None:
    labels = [[item["label"] for item in json.loads(text)] for text in (curl(server, folder), shown())]
    assert labels[0] == labels[1] == ["espresso", "cup", "coffee mug"]


def test_each_row_has_its_answer_and_a_bad_row_names_function_and_line(server: TritonServer, folder: Path) -> None:
    photo = (folder / "photo.jpg").read_bytes()
    with Client(server.grpc_url, retry=None) as client:
        answer = client.infer("photo_labels", jpeg=[photo, photo])["labels"]
        assert answer.shape == (2, 1)
        assert len({str(item) for item in answer.flat}) == 1
        with pytest.raises(
            InvalidInput, match=r"decode \(photo.py:\d+\) failed on row 1: ValueError: this is no image"
        ):
            client.infer("photo_labels", jpeg=[photo, b"GIF?"])


def test_passports_name_the_packages(folder: Path) -> None:
    assert packages_of(folder / "model_repository") == {"pillow==13.0.0"}


JSON = """
import json

import numpy as np


def read(body):
    return {"x": np.array(json.loads(body)["values"], np.float32)}


def write(y):
    return {"answer": json.dumps({"sum": float(y.sum())})}


def sample():
    return {"body": '{"values": [1, 2, 3, 4]}'}
"""
SECTION: dict[str, Any] = {
    "name": "service", "file": "service.py", "sample": "sample",
    "before": {"function": "read", "inputs": {"body": {"dtype": "string", "dims": []}}},
    "after": {"function": "write", "outputs": {"answer": {"dtype": "string", "dims": []}}},
}  # fmt: skip


def build(project: Project, code: str, **changes: Any) -> tuple[int, str, str]:
    (project.directory / "service.py").write_text(code, encoding="utf-8")
    project.write(python=SECTION | changes)
    return project.build()


def test_json_goes_in_and_comes_out(project: Project, installed_server: Runtime) -> None:
    code, _, error = build(project, JSON.replace('{"sum"', '{"n": 4, "sum"'))
    assert code == 0, error
    with TritonServer(project.repository, runtime=installed_server, exit_timeout_s=1) as server:
        command = ["curl", "-s", "-H", "Inference-Header-Content-Length: 0", "-d", '{"values": [1, 0, 0, 0]}']
        url = f"{server.http_url}/v2/models/service/infer"
        printed = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    assert '"n": 4' in printed.replace("\\", "")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("import json\n", "import json, no_such_package\n", "imports 'no_such_package'"),
        ("import json\n", "import json, yaml\n", "add  packages: [pyyaml=="),
        ("[\"values\"]", "[\"value\"]", "read (service.py:8) failed on the sample: KeyError: 'value'"),
        ("np.float32", "np.float32)[:3].astype(np.float32", "x has the shape [3], the recipe says [4]"),
        ("{\"x\":", "{\"z\":", "must return a dict of ['x'], got ['z']"),
        ("def write(y)", "def write(z)", "has the parameter 'z'"),
        ("y.sum()", "y.missing", "write (service.py:12) failed on the sample: AttributeError"),
        ("def read", "def reads", "has no 'read'"),
        ("def read(body):", "def read(body)", "is no Python"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(
    project: Project, old: str, new: str, expected: str
) -> None:
    code, _, error = build(project, JSON.replace(old, new))
    assert code == 2
    assert expected in error
    assert "Traceback" not in error
    assert project.files() == {}


def test_a_package_of_the_recipe_that_the_build_lacks_is_named_with_its_installation(project: Project) -> None:
    text = JSON.replace("import json\n", "import json, no_such_module\n")
    code, _, error = build(project, text, packages=["no-such-package==1.0"])
    assert code == 2
    assert "imports 'no_such_module', and of its packages no-such-package==1.0 is not installed here" in error
    assert "-m pip install no-such-package==1.0" in error
