"""The command, against a real server, as a user types it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tritonkit.server import TritonServer
from tritonkit_client import Client
from tritonkit_client._cli.main import _parser, main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_health_says_yes_and_no_and_exits_by_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "health", url) == (0, "live: yes\nready: yes\n", "")
    assert run(capsys, "health", url, "arithmetic") == (0, "ready: yes\n", "")
    assert run(capsys, "health", url, "absent") == (1, "ready: no\n", "")
    code, _, err = run(capsys, "health", "grpc://127.0.0.1:1", "--timeout", "2")
    assert code == 2
    assert err.startswith("error: ConnectionFailed: ")
    assert "fix:" in err


def test_models_metadata_configuration_and_statistics_are_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", url)
    assert code == 0
    assert "arithmetic\t1\tREADY\n" in out
    code, out, _ = run(capsys, "metadata", url, "arithmetic")
    assert out.splitlines()[1:4] == ["max_batch_size 4", "input left: FP32 [-1, 3]", "input right: FP32 [-1, 3]"]
    code, out, _ = run(capsys, "metadata", url, "arithmetic", "--json")
    assert json.loads(out)["max_batch_size"] == 4
    code, out, _ = run(capsys, "config", url, "arithmetic")
    assert json.loads(out)["name"] == "arithmetic"
    run(capsys, "infer", url, "arithmetic", "left=[1,2,3]", "right=[1,1,1]")
    code, out, _ = run(capsys, "stats", url, "arithmetic")
    assert "average batch" in out


def test_numbers_are_written_out_and_a_batch_is_added(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "infer", url, "arithmetic", "left=[1, 2, 3]", "right=[[1, 1, 1.5]]")
    assert code == 0
    assert out.splitlines()[0] == "sum [1, 3] float32: [2.0, 3.0, 4.5]"
    code, out, _ = run(capsys, "infer", url, "arithmetic", "left=[1,2,3]", "right=[1,1,1]", "--output", "sum", "--json")
    assert json.loads(out) == {"sum": [[2.0, 3.0, 4.0]]}
    _, again, _ = run(capsys, "infer", "--json", url, "arithmetic", "left=[1,2,3]", "--output", "sum", "right=[1,1,1]")
    assert again == out
    with pytest.raises(SystemExit):
        run(capsys, "infer", url, "arithmetic", "--no-such-option")
    assert "--no-such-option" in capsys.readouterr().err


def test_files_are_read_by_their_kind(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "left.npy", np.ones((2, 3), np.float32))
    (tmp_path / "right.json").write_text("[[1, 2, 3], [4, 5, 6]]")
    code, out, _ = run(
        capsys, "infer", url, "arithmetic", f"left=@{tmp_path}/left.npy", f"right=@{tmp_path}/right.json",
        "--save", f"{tmp_path}/out",
    )  # fmt: skip
    assert code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out/sum.npy"), [[2, 3, 4], [5, 6, 7]])
    Image.new("RGB", (640, 480), (255, 0, 0)).save(tmp_path / "cat.jpg")
    code, out, _ = run(capsys, "infer", url, "efficientnet_lite0", f"image=@{tmp_path}/cat.jpg")
    assert code == 0
    assert out.startswith("logits [1, 1000] float32: [0.0, ")
    assert out.endswith("…\n")
    (tmp_path / "size.txt").write_text("größe\n", encoding="utf-8")
    code, out, _ = run(capsys, "infer", url, "identity", f"in_BYTES=@{tmp_path}/size.txt", "--json")
    assert json.loads(out) == {"out_BYTES": [["größe"]]}


def test_text_is_text(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "infer", url, "identity", "in_BYTES=hello = there", "--json")
    assert json.loads(out) == {"out_BYTES": [["hello = there"]]}
    _, out, _ = run(capsys, "infer", url, "identity", "in_BYTES=[INST] hello [/INST]", "--json")
    assert json.loads(out) == {"out_BYTES": [["[INST] hello [/INST]"]]}
    _, out, _ = run(capsys, "infer", url, "identity", 'in_BYTES=["one", "two"]', "--json")
    assert json.loads(out) == {"out_BYTES": [["one", "two"]]}


def test_responses_of_a_stream_are_printed_as_they_come(
    server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("upto=[3]", "size=[1]", "pause=[0]", "mark=none", "--stream", "--json")
    code, out, _ = run(capsys, "infer", server.grpc_url, "count", *arguments)
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [{"number": [number]} for number in range(3)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("arithmetic", "lft=[1]"), "has no input 'lft'"),
        (("arithmetic", "left"), "has no '='"),
        (("arithmetic", "left=[1"), "is not JSON"),
        (("arithmetic", "left=@/nowhere.npy"), "is not a file"),
        (("arithmetic", "left=[1,2,3]"), "needs input 'right'"),
        (("identity", "in_INT8=[[1.5]]"), "do not fit the type"),
        (("identity", "in_UINT8=[[300]]"), "do not fit the type"),
        (("absent",), "ModelNotFound"),
    ],
)
def test_mistakes_are_named(
    url: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = run(capsys, "infer", url, *arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_it_runs_as_a_module_and_takes_its_token_from_the_environment(server: TritonServer) -> None:
    command = [sys.executable, "-m", "tritonkit_client", "infer", server.http_url, "inspect", "--json",
               "--header", "x-team: vision"]  # fmt: skip
    environment = {**os.environ, "TRITONKIT_CLIENT_TOKEN": "abc"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seen = json.loads(json.loads(done.stdout)["seen"][0])["parameters"]
    assert "Bearer abc" in seen.values()
    assert "vision" in seen.values()


@pytest.mark.parametrize(
    ("name", "words"),
    [("x.npy", "is not an array"), ("x.json", "is not JSON"), ("x.jpg", "is not an image"), ("x.bin", "not known")],
)
def test_a_file_that_is_something_else_is_named(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    for content in (b"", b"\xff\xfe\x00garbage"):
        (tmp_path / name).write_bytes(content)
        code, _, err = run(capsys, "infer", url, "efficientnet_lite0", f"image=@{tmp_path / name}")
        assert code == 2
        assert words in err


def test_a_folder_that_cannot_be_written_is_named(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    sides = ("left=[1,2,3]", "right=[1,1,1]")
    code, _, err = run(capsys, "infer", url, "arithmetic", *sides, "--save", "/dev/null/out")
    assert code == 2
    assert "/dev/null/out" in err


def test_a_key_without_its_certificate_is_not_overlooked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "app.key").touch()
    code, _, err = run(capsys, "health", "grpcs://127.0.0.1:1", "--key", str(tmp_path / "app.key"))
    assert code == 2
    assert "certificate" in err


def test_outputs_are_not_written_beside_the_folder(
    monkeypatch: pytest.MonkeyPatch, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(Client, "infer", lambda *_args, **_named: {"../escaped": np.zeros(1)})
    code, _, err = run(capsys, "infer", url, "arithmetic", "--save", str(tmp_path / "out"))
    assert code == 2
    assert "cannot be the name of a file" in err
    assert not (tmp_path / "escaped.npy").exists()


def test_a_reader_that_has_seen_enough_is_no_error(server: TritonServer) -> None:
    command = (
        f"{sys.executable} -m tritonkit_client config {server.http_url} arithmetic | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_an_interrupted_command_ends_quietly(server: TritonServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tritonkit_client", "infer", server.grpc_url, "count", "--stream"]
    inputs = ("upto=[100]", "size=[1]", "pause=[0.1]", f"mark={tmp_path / 'cancelled'}")
    with subprocess.Popen([*command, *inputs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("number [1]")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "")


@pytest.mark.parametrize("verb", ["health", "models", "metadata", "config", "stats", "infer", "generate", "completion"])
def test_every_verbs_examples_are_understood_and_run(
    verb: str, server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    parser, verbs = _parser()
    assert set(verbs) >= {verb}
    assert verbs[verb].examples
    shown = verbs[verb].format_help()
    for example in verbs[verb].examples:
        assert f"\n  {example}\n" in shown
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        assert words[:2] == ["tritonkit-client", verb]
        parser.parse_args(words[1:])
        if verb not in ("infer", "generate", "completion"):
            here = {"grpc://127.0.0.1:8001": server.grpc_url, "my_model": "arithmetic"}
            code, _, err = run(capsys, *[here.get(word, word) for word in words[1:]])
            assert code == 0, err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("helth grpc://h", "; did you mean health?"),
        ("health --jsno", "--jsno; did you mean --json?"),
        ("infer grpc://h m --stream x=1 --tpo 3", "tritonkit-client infer: error: unrecognized arguments: --tpo; did you mean --top?"),
        ("--json health grpc://h", "--json; the options of a verb stand after it"),
    ],
)  # fmt: skip
def test_a_misspelt_word_is_answered_with_the_nearest_that_there_is(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(shlex.split(line))
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--version", "infer --version"])
def test_the_version_is_that_of_the_package(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(shlex.split(line))
    assert capsys.readouterr().out == f"tritonkit-client {metadata.version('tritonkit-client')}\n"
