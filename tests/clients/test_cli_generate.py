"""``tritonkit-client generate``, against the scripted models of `textmodels`, as a user types it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from textmodels import script

from tritonkit.server import TritonServer
from tritonkit_client._cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(("generate", *arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_answer_is_on_stdout_and_its_usage_on_stderr(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "once upon a\n", "finish reason length, 4 prompt tokens, 3 completion tokens\n"
    assert run(capsys, url, "llama", "once upon a time", "--max-tokens", "3") == (0, *expected)
    assert run(capsys, url, "llama", "once upon a time", "--max-tokens", "3", "--stream") == (0, *expected)
    code, out, err = run(capsys, url, "llama_old", "once upon")
    assert (code, out, err) == (0, "once upon\n", "the engine does not tell tokens, nor why the answer ends\n")


def test_json_has_all_of_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"text": "once upon", "finish_reason": "length", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    code, out, err = run(capsys, url, "llama", "once upon a", "--max-tokens", "2", "--json")
    assert (code, json.loads(out), err) == (0, whole, "")
    code, out, err = run(capsys, url, "llama", "once upon a", "--max-tokens", "2", "--json", "--stream")
    assert [json.loads(line) for line in out.splitlines()] == [{"text": "once"}, whole | {"text": " upon"}]


def test_parameters_messages_and_stdin(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ("--temperature", "0", "--stop", "x", "--stop", "y", "--seed", "3", "--lora", "poet",
               "--set", "top_p=0.5", "--set", "bad_words=[\"z\"]", "--max-tokens", "60")  # fmt: skip
    code, out, _ = run(capsys, url, "llama", script("", echo=True), *options)
    assert code == 0
    assert json.loads(out) == {
        "temperature": 0.0, "stop": ["x", "y"], "seed": 3, "lora_name": "poet", "top_p": 0.5, "bad_words": ["z"],
        "max_tokens": 60,
    }  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert (
        run(capsys, url, "llama", "-", "--system", "be brief")[1]
        == "<|system|> be brief <|user|> hello\n <|assistant|>\n"
    )
    (tmp_path / "own.jinja").write_text("{% for message in messages %}[{{ message.content }}]{% endfor %}")
    assert run(capsys, url, "llama_trt", "hello", "--chat-template", str(tmp_path / "own.jinja"))[1] == "[hello]\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("llama", "x", "--set", "top_p"), "has no '='"),
        (("llama", "x", "--set", "top_pp=1"), "has no parameter 'top_pp'"),
        (("llama", "x", "--max-tokens", "0"), "max_tokens=0 is below 1"),
        (("llama", "x", "--idle-timeout", "3"), "--idle-timeout is for streams"),
        (("llama_trt", "x", "--chat"), "does not publish a chat template"),
        (("writer", "x"), "is no language model"),
        (("absent", "x"), "ModelNotFound"),
    ],
)
def test_mistakes_are_named(
    url: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = run(capsys, url, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "fix: " in err


def test_what_came_before_an_error_is_printed_on_a_line_of_its_own(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, url, "llama", script("one two three", fail=2), "--stream")
    assert (code, out) == (2, "one two\n")
    assert err.startswith("error: ServerError: the server failed: Error generating stream: the engine died")


def test_text_is_printed_as_it_comes(server: TritonServer) -> None:
    command = [sys.executable, "-m", "tritonkit_client", "generate", server.http_url, "llama", "--stream"]
    with subprocess.Popen([*command, script("one two three", pause=0.5)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.read(3) == "one"
        assert running.poll() is None
        assert running.stdout.read() == " two three\n"
