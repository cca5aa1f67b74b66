"""`tritonkit advise` on graphs: a ranked table with verdicts and reasons, and bad input that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
import yaml
from graphfile import value
from onnx import TensorProto, helper
from pages import laid_out, read

from tritonkit import cli, gpus
from tritonkit import recipe as recipes
from tritonkit.advisor import advise, page, queueing, roofline, serving
from tritonkit.advisor.references import reference

EFFICIENTNET = {size: reference("efficientnet_lite0", {}, size) for size in serving.batch_sizes(64)}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product of 512 × 512 with a batch and a moving length, and an operator that nobody knows."""
    path = tmp_path_factory.mktemp("advise") / "dense.onnx"
    weight = helper.make_tensor("w", TensorProto.FLOAT, (512, 512), bytes(4 * 512 * 512), raw=True)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Sharpen", ["y"], ["z"], domain="my.ops"),
    ]  # fmt: skip
    onnx_graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["batch", "length", 512])],
        [value("z", TensorProto.FLOAT, ["batch", "length", 512])], [weight],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.ops", 1)]
    onnx.save(helper.make_model(onnx_graph, opset_imports=opsets), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = cli.main(["advise", *map(str, words), *([] if "--max-batch" in words else ["--max-batch", "8"])])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_table_names_the_cheapest_and_says_why(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (graph, "--shape", "length=128", "--gpu", "t4,l4,h200", "--rps", "500", "--p99-ms", "20")
    code, output, _ = run(capsys, *words)
    assert code == 0
    assert "best" in output
    assert "of a full batch's" in output
    assert "counted as elementwise: my.ops.Sharpen (1)" in output
    assert "prices: list prices on demand" in output


def test_json_has_every_candidate_and_prices_of_ones_own_decide(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (graph, "--shape", "length=128", "--gpu", "t4,l4", "--rps", "500", "--p99-ms", "20", "--json")
    for cheap, dear in (("t4", "l4"), ("l4", "t4")):
        code, output, _ = run(capsys, *words, "--price", f"{cheap}=0.1", "--price", f"{dear}=10")
        candidates = json.loads(output)["candidates"]
        assert (code, candidates[0]["gpu"], candidates[0]["verdict"]) == (0, cheap, "best")
        assert {(candidate["gpu"], candidate["precision"], candidate["engine"]) for candidate in candidates} == {
            (gpu, precision, engine)
            for gpu in ("t4", "l4") for precision in ("fp32", "fp16") for engine in ("onnxruntime", "tensorrt")
        }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--shape", "length=128", "--gpu", "h1000"], ["there is no GPU 'h1000'", "did you mean h100"]),
        ([], ["dimensions without a size: length (of x)", "--shape length=128"]),
        (["--shape", "length=128", "--rps", "-5"], ["--rps is -5", "above 0"]),
        (["--shape", "length=128", "--p99-ms", "0"], ["--p99-ms is 0", "above 0"]),
        (["--shape", "length=128", "--price", "l4=-1"], ["the price of l4 is -1", "0 or more"]),
        (["--shape", "width=3"], ["dimensions without a size: length"]),
        (["--shape", "length=128", "--utilization", "2"], ["--utilization is 2"]),
        (["--shape", "length=128", "--max-batch", "0"], ["batch 0"]),
    ],
)
def test_bad_input_says_what_is_wrong_and_what_to_do(
    graph: Path, words: list[str], messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, graph, *words)
    assert code == 2
    for message in messages:
        assert message in " ".join(error.split())


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, tmp_path / "model.pt")
    assert code == 2
    assert "no recipe, no .onnx file" in error
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    code, _, error = run(capsys, tmp_path / "broken.onnx")
    assert code == 2
    assert "not a valid ONNX model" in error


def test_a_promise_that_nothing_keeps_says_what_forbids_it_and_by_how_much(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = run(capsys, graph, "--shape", "length=128", "--gpu", "t4,h200", "--p99-ms", "0.2", "--rps", "10")
    output = " ".join(output.split())
    assert code == 1
    assert "no GPU answers within 0.2 ms: a lone request takes" in output
    assert "ms too long (the way there and back 1.50" in output
    assert "peaks of the GPU alone would allow" in output


def test_values_have_the_best_gpu_and_as_many_pods(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, drawn = tmp_path / "values.yaml", tmp_path / "advice.html"
    words = (graph, "--shape", "length=128", "--gpu", "a100-sxm-80", "--rps", "50000", "--p99-ms", "50", "--json")
    code, output, _ = run(capsys, *words, "--values", path, "--html", drawn)
    best = json.loads(output)["candidates"][0]
    values = yaml.safe_load(path.read_text())
    assert code == 0
    assert values == {"replicas": best["replicas"], "accelerator": {"products": ["NVIDIA-A100-SXM4-80GB"]}}
    assert drawn.read_text().count("<circle") > 1


def test_the_plot_of_a_terminal_has_a_letter_for_each_kind_of_layer_below_the_limit() -> None:
    options = advise.Options(rps=5000, p99_ms=20)
    candidate = roofline.drawn(advise.advise(EFFICIENTNET, options))
    assert candidate is not None
    plot = roofline.of(EFFICIENTNET[max(EFFICIENTNET)], candidate, max(EFFICIENTNET))
    title, cache, *lines = roofline.in_letters(plot, 100, 22).splitlines()
    assert title.startswith(f"TFLOP/s over operations a byte, batch {max(EFFICIENTNET)} on ")
    assert "level 2 cache" in cache
    assert max(map(len, lines)) <= 100
    framed = [line[1:].split("│")[0] for line in lines if line.startswith("│")]
    kinds = {point.layer.kind for point in plot.points}
    assert {letter for line in framed for letter in line if letter.isalpha()} == {
        roofline.LETTERS[kind] for kind in kinds
    }
    flat = next(line for line in framed if "·" in line)  # the level limit is the highest line with anything in it
    assert flat.rstrip().endswith("·")
    assert all(kind in " ".join(lines[-2:]) for kind in kinds)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_the_page_fits_a_telephone_and_a_desk(tmp_path: Path) -> None:
    options = advise.Options(rps=5000, p99_ms=20)
    text = page.render("efficientnet_lite0", EFFICIENTNET, options, advise.advise(EFFICIENTNET, options))
    for (_, width), layout in laid_out("chromium", tmp_path, {"advice": text}, (390, 1280)).items():
        assert layout.scroll <= layout.client == width
        assert not [*layout.outside, *layout.overlaps, *layout.faint, *layout.fetched]
    widths = [tag["width"] for name, tag in read(text).tags if name == "svg"]
    assert widths == ["860", "358"]  # each at its own size, where letters are 12 pixels high


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("product") / "product.onnx"
    weight = helper.make_tensor("w", TensorProto.FLOAT, (512, 512), bytes(4 * 512 * 512), raw=True)
    shape: list[str | int | None] = ["batch", "length", 512]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"])], "g", [value("x", TensorProto.FLOAT, shape)],
        [value("z", TensorProto.FLOAT, shape)], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize(
    ("batching", "kept"),
    [
        ("", ""),
        ("batching: {instances: 2, target: cpu}   # measured by `make tune`\n", ""),
        ("batching:\n  # as many as the cores\n  instances: 2\n", "  # as many as the cores\n"),
    ],
)
def test_the_advised_batching_goes_into_the_recipe_and_comments_stay(
    tmp_path: Path, product: Path, batching: str, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dense.yaml"
    before = (
        f"# A product.\nname: dense\nsource: {{onnx: {product}}}\n"
        "inputs: {x: {dtype: fp32, dims: [length, 512]}}\noutputs: {z: {dtype: fp32, dims: [length, 512]}}\n"
        "shapes: {length: {min: 1, opt: 128, max: 256}}   # tokens\nmax_batch_size: 64\n"
    )
    file.write_text(before + batching)
    words = ["--gpu", "l4", "--rps", "500", "--p99-ms", "20", "--engine", "onnxruntime", "--recipe"]
    code = cli.main(["advise", str(file), *words])
    printed = " ".join(capsys.readouterr().out.split())
    after = file.read_text()
    section = recipes.load_graph(file).batching
    assert code == 0
    assert after.startswith(before)
    assert (section.target, section.instances, section.max_queue_delay_us) == ("cuda", 4, 0)
    assert section.max_batch_size is not None
    assert section.max_batch_size < 64
    assert kept in after
    assert "make tune" not in after
    assert "has batching for cuda now: 4 instances" in printed
    assert ("in place of what it had" in printed) == bool(batching)


def test_a_graph_has_no_recipe_to_write_to(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, graph, "--shape", "length=128", "--recipe")
    assert code == 2
    assert "--recipe writes into a recipe" in error


def test_the_advised_batch_is_the_smallest_that_carries_the_rate() -> None:
    options = advise.Options(rps=1000, p99_ms=20, gpus=(gpus.get("l4"),), engines=("onnxruntime",))
    best = advise.advise(EFFICIENTNET, options).candidates[0]
    largest = advise.largest_batch(EFFICIENTNET, best, options)
    assert 1 <= largest < 64
    smaller = {size: cost for size, cost in EFFICIENTNET.items() if size < largest}
    again = advise.advise(smaller, options).candidates if smaller else ()
    same = [candidate for candidate in again if candidate.precision == best.precision]
    assert all((candidate.replicas or 99) > (best.replicas or 1) for candidate in same)


def test_a_cpu_core_is_a_row_with_values_of_its_own(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, drawn = tmp_path / "values.yaml", tmp_path / "advice.html"
    words = (graph, "--shape", "length=16", "--gpu", "cpu,t4", "--price", "t4=10", "--price", "cpu=0.01", "--rps", "50")
    code, output, _ = run(capsys, *words, "--engine", "onnxruntime", "--values", values, "--html", drawn)
    assert code == 0
    assert "another CPU is another figure" in " ".join(output.split())
    assert yaml.safe_load(values.read_text())["accelerator"] == {"kind": "cpu"}
    assert "<svg" in drawn.read_text()


def test_replicas_carry_the_rate_and_one_less_does_not() -> None:
    options = advise.Options(rps=60_000, p99_ms=20, gpus=(gpus.get("h200"),), engines=("onnxruntime",))
    (best, *_) = advise.advise(EFFICIENTNET, options).candidates
    assert best.replicas is not None
    assert best.replicas > 1
    assert best.p99_ms is not None
    assert best.p99_ms <= 20
    assert best.holds_rps * best.replicas >= 60_000 > best.holds_rps * (best.replicas - 1)


def test_at_one_price_the_safest_precision_comes_first() -> None:
    options = advise.Options(
        rps=100, gpus=(gpus.get("l4"),), engines=("tensorrt",), precisions=("int8", "fp16", "fp32")
    )
    candidates = advise.advise({1: EFFICIENTNET[1]}, options).candidates
    assert [candidate.precision for candidate in candidates] == ["fp32", "fp16", "int8"]


def test_nothing_is_promised_that_the_measured_table_contradicts() -> None:
    """One H200 with four instances served 8,596 photographs a second in fp32 (docs/measurements/gpu.md)."""
    options = advise.Options(gpus=(gpus.get("h200"),), engines=("onnxruntime",), precisions=("fp32",))
    (candidate,) = advise.advise(EFFICIENTNET, options).candidates
    assert candidate.most_rps == pytest.approx(8596, rel=0.2)
    assert candidate.holds_rps <= 8596
    assert candidate.lone_ms == pytest.approx(2.17, rel=0.2)


def test_an_unpublished_peak_predicts_nothing() -> None:
    options = advise.Options(gpus=(gpus.get("rtx-pro-6000"),), precisions=("fp16",))
    for candidate in advise.advise({1: EFFICIENTNET[1]}, options).candidates:
        assert (candidate.verdict, candidate.lone_ms, candidate.replicas) == ("no peak", None, None)
        assert "no published fp16 peak" in candidate.reasons[0]


def test_utilization_stays_below_what_a_queue_bears() -> None:
    assert queueing.MOST_BUSY >= advise.UTILIZATION
