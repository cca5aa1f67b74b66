"""The command's output and files for values that JSON and .npy lack; several inputs and images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from PIL import Image, ImageOps

from tritonkit.server import TritonServer
from tritonkit_client._cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def strict(text: str) -> Any:
    """Parse JSON as in RFC 8259: Python's own parser takes NaN and Infinity too."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_does_not_have_are_spelled(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    odd = '[["NaN", "Infinity", "-Infinity", 1.5]]'
    for name in ("FP16", "BF16", "FP32", "FP64"):
        code, printed, _ = run(capsys, "infer", url, "identity", f"in_{name}={odd}", "--json")
        assert code == 0
        assert strict(printed) == {f"out_{name}": json.loads(odd)}
    code, printed, _ = run(capsys, "infer", url, "identity", "in_FP32=[[NaN]]")
    assert printed == 'out_FP32 [1, 1] float32: ["NaN"]\n'
    code, _, error = run(capsys, "infer", url, "identity", "in_FP64=[[1e999]]")
    assert (code, "1e999 is larger than any float" in error) == (2, True)
    code, _, error = run(capsys, "infer", url, "identity", "in_INT8=[[" + '"NaN"' + "]]")
    assert (code, "do not fit the type" in error) == (2, True)


def test_bytes_that_are_no_text_are_printed_whole_and_taken_back(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = '[[{"b64": "/9j/"}, "größe"]]'
    code, printed, _ = run(capsys, "infer", url, "identity", f"in_BYTES={given}", "--json")
    assert code == 0
    assert strict(printed) == {"out_BYTES": json.loads(given)}
    code, _, error = run(capsys, "infer", url, "identity", 'in_BYTES=[[{"b64": "?"}]]')
    assert (code, "is not base64" in error) == (2, True)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"ab\0\0", b"\0"])
def test_bytes_are_saved_as_they_are(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    (tmp_path / "out_BYTES.npy").touch()  # of an earlier call
    given = (f"in_BYTES=@{tmp_path / 'x.bin'}", "--save", str(tmp_path))
    code, _, error = run(capsys, "infer", url, "identity", *given)
    assert code == 0
    assert (tmp_path / "out_BYTES.bin").read_bytes() == content
    assert "out_BYTES.bin" in error
    assert not (tmp_path / "out_BYTES.npy").exists()


def test_a_tensor_is_saved_with_its_values(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = 'in_BYTES=[["a", {"b64": "/w=="}], ["", "d\\u0000"]]'
    code, _, error = run(capsys, "infer", url, "identity", several, "in_BF16=[[1.5, 2]]", "--save", str(tmp_path))
    assert code == 0
    saved = [(tmp_path / f"out_BYTES.{number}.bin").read_bytes() for number in range(4)]
    assert saved == [b"a", b"\xff", b"", b"d\0"]
    np.testing.assert_array_equal(np.load(tmp_path / "out_BF16.npy"), [[1.5, 2]])
    assert "saved as float32" in error
    np.save(tmp_path / "raw.npy", np.array([[1.5, 2]], ml_dtypes.bfloat16))
    for file in ("out_BF16", "raw"):  # what is saved can be sent
        code, printed, _ = run(capsys, "infer", url, "identity", f"in_BF16=@{tmp_path / file}.npy", "--json")
        assert (code, json.loads(printed)) == (0, {"out_BF16": [[1.5, 2]]})
    text = 'in_BYTES=[["größe", "a\\u0000b"]]'
    assert run(capsys, "infer", url, "identity", text, "--save", str(tmp_path))[0::2] == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "out_BYTES.npy"), [["größe", "a\0b"]])
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_every_response_of_a_stream_is_saved(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("upto=[3]", "size=[2]", "pause=[0]", "mark=none", "--stream", "--save", str(tmp_path / "out"))
    assert run(capsys, "infer", server.grpc_url, "count", *arguments)[0] == 0
    saved = [np.load(path).tolist() for path in sorted((tmp_path / "out").glob("*/number.npy"))]
    assert saved == [[0, 0], [1, 1], [2, 2]]


def test_nothing_is_lost_in_silence_where_the_output_cannot_be_written(server: TritonServer) -> None:
    command = f"{sys.executable} -m tritonkit_client models {server.http_url}"
    for where in (">&-", ">/dev/full"):
        done = subprocess.run(["bash", "-c", f"{command} {where}"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


def test_an_input_given_several_times_is_a_batch(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[float(number)] * 3 for number in range(9)]  # more than fit in a request
    given = [f"x={json.dumps(row)}" for row in rows]
    code, printed, _ = run(capsys, "infer", url, "labelled", *given, "--json")
    assert (code, json.loads(printed)) == (0, {"y": rows})
    code, _, error = run(capsys, "infer", url, "grow", "n=[1]", "n=[2]")
    assert (code, "is given 2 times" in error) == (2, True)
    code, _, error = run(capsys, "infer", url, "arithmetic", "left=[[1], [2, 3]]", "right=[1, 2, 3]")
    assert (code, "different lengths" in error) == (2, True)


def test_images_are_turned_upright_and_sent_together(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)  # held sideways: 4 wide, 6 high
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=exif)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "b.png") as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(upright, np.rot90(pixels, -1))
    for given in ([f"x=@{tmp_path}/a.png", f"x=@{tmp_path}/b.png"], [f"x=@{tmp_path}/*.png"]):
        code, printed, _ = run(capsys, "infer", url, "photo", *given, "--json")
        assert code == 0
        np.testing.assert_array_equal(json.loads(printed)["y"], [np.zeros((4, 6, 3)), upright])
    code, _, error = run(capsys, "infer", url, "photo", f"x=@{tmp_path}/*.jpg")
    assert (code, "matches no file" in error) == (2, True)
    code, _, error = run(capsys, "infer", url, "labelled", f"x=@{tmp_path}/a.png")
    assert (code, "Traceback" in error) == (2, False)
    code, _, error = run(capsys, "infer", url, "identity", f"in_INT8=@{tmp_path}/a.png")
    assert (code, "which images are not" in error) == (2, True)


def test_the_best_classes_are_printed_with_their_labels(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "infer", url, "labelled", "x=[1, 3, 2]", "x=[5, 0, 0]", "--top", "2")
    assert (code, printed) == (0, "y 0: dog: large 3, fish 2\ny 1: cat 5, dog: large 0\n")
    _, printed, _ = run(capsys, "infer", url, "labelled", 'x=[1, 3, "Infinity"]', "--top", "1", "--json")
    assert strict(printed) == {"y": [[{"index": 2, "label": "fish", "score": "Infinity"}]]}
    code, _, error = run(capsys, "infer", url, "labelled", "x=[1, 3, 2]", "--top", "1", "--save", "out")
    assert (code, "--save" in error) == (2, True)
