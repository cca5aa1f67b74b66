"""The one catalogue of GPUs: complete, consistent with itself, and found by the names that people use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tritonkit import gpus
from tritonkit.errors import InputError

WANTED = {
    "t4", "a10g", "l4", "l40s", "a100-pcie-40", "a100-sxm-40", "a100-pcie-80", "a100-sxm-80", "h100-pcie", "h100-sxm",
    "h100-nvl", "h200", "b200",
}  # fmt: skip
FIGURES = ("compute_capability", "sms", "memory_gib", "bandwidth_gbs", "peaks", "l2_mib", "nvlink_gbs", "tdp_w", "mig")


def test_every_gpu_is_there_and_every_figure_has_a_source() -> None:
    catalogue = {gpu.key: gpu for gpu in gpus.all()}
    assert set(catalogue) >= WANTED
    for gpu in catalogue.values():
        assert all(gpu.sources[figure] for figure in (*FIGURES, *gpu.instances))
        assert min(gpu.sms, gpu.memory_gib, gpu.bandwidth_gbs, gpu.l2_mib, gpu.tdp_w) > 0


@pytest.mark.parametrize("gpu", [gpu for gpu in gpus.all() if "tf32" in gpu.peaks], ids=lambda gpu: gpu.key)
def test_peaks_are_dense_each_halving_of_the_bits_doubles_them(gpu: gpus.Gpu) -> None:
    assert gpu.peaks["fp16"] == gpu.peaks["bf16"] == pytest.approx(2 * gpu.peaks["tf32"], rel=0.03)
    assert gpu.peaks["int8"] == pytest.approx(2 * gpu.peaks["fp16"], rel=0.02)
    assert ("fp8" in gpu.peaks) == (gpu.compute_capability >= gpus.FP8_SINCE)


def test_figures_that_are_often_copied_wrong() -> None:
    sxm, pcie = gpus.get("a100-sxm-80"), gpus.get("a100-pcie-40")
    assert (sxm.peaks["fp32"], sxm.bandwidth_gbs, pcie.bandwidth_gbs) == (19.5, 2039, 1555)  # not 77.6, not 624
    assert (gpus.get("a10g").peaks["fp16"], gpus.get("a10").peaks["fp16"]) == (70, 125)
    assert gpus.get("h100-sxm").peaks["fp8"] == 1979  # 3,958 is with sparsity


@pytest.mark.parametrize("gpu", [gpu for gpu in gpus.all() if gpu.mig], ids=lambda gpu: gpu.key)
def test_mig_slices_fit_into_the_memory(gpu: gpus.Gpu) -> None:
    for profile, count in gpu.mig.items():
        slices, memory = profile.removesuffix("gb").split("g.")
        assert int(memory) * count <= gpu.memory_gib + 7  # profiles round up
        assert int(slices) * count <= 7


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("T4", ["t4"]), ("h100", ["h100-pcie", "h100-sxm", "h100-nvl"]), ("a100-80", ["a100-pcie-80", "a100-sxm-80"]),
        ("A100 80GB", ["a100-pcie-80", "a100-sxm-80"]), ("h100_sxm", ["h100-sxm"]),
    ],
)  # fmt: skip
def test_names_of_parts_and_families(name: str, keys: list[str]) -> None:
    assert [gpu.key for gpu in gpus.members(name)] == keys
    assert gpus.get(name).key == keys[0]


@pytest.mark.parametrize(
    ("product", "key"),
    [
        ("Tesla T4", "t4"), ("NVIDIA A100-SXM4-80GB", "a100-sxm-80"), ("NVIDIA A100 80GB PCIe", "a100-pcie-80"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40"), ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"), ("NVIDIA L40S", "l40s"), ("NVIDIA L40", None), ("NVIDIA GeForce RTX 4090", None),
    ],
)  # fmt: skip
def test_what_nvidia_smi_says(product: str, key: str | None) -> None:
    gpu = gpus.by_product(product)
    assert (gpu.key if gpu else None) == key


def test_an_unknown_gpu_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError) as refused:
        gpus.get("h10")
    assert "there is no GPU 'h10'" in refused.value.message
    assert "did you mean h100" in refused.value.fix
    with pytest.raises(InputError) as refused:
        gpus.get("l40")
    assert "did you mean l40s" in refused.value.fix


def test_prices_are_dated_and_of_one_gpu() -> None:
    price = gpus.price(gpus.get("h200"))
    assert price is not None
    assert (price.instance, price.dated) == ("p5en.48xlarge", "2026-09")
    assert price.usd_per_hour == pytest.approx(63.296 / 8)
    assert gpus.price(gpus.get("h100-pcie")) is None


def test_what_no_page_confirms_is_marked_and_documented() -> None:
    text = (Path(gpus.__file__).with_name("gpus.json")).read_text(encoding="utf-8")
    sources = json.loads(text)["sources"]
    assert {key for key, source in sources.items() if "not checked" in source} == {
        "rtx-pro-6000", "h100-nvl-chip", "mig_sms"
    }  # fmt: skip
    page = " ".join((Path(__file__).parents[2] / "docs/guides/advisor.md").read_text(encoding="utf-8").split())
    assert "**Not confirmed: the L2 of the H100 NVL" in page
    for gpu in gpus.all():
        assert bool(gpu.mig) == bool(gpu.mig_sms)
        assert all(int(profile[0]) * gpu.mig_sms <= gpu.sms for profile in gpu.mig)
