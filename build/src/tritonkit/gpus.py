"""The one catalogue of GPUs: what recipes, engines, lint and the advisor know of them, each figure with its source.

The figures are in ``gpus.json`` beside this module. How long a model takes on a GPU is for :mod:`tritonkit.advisor`.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from tritonkit.errors import InputError

FP8_SINCE = (8, 9)  # the first compute capability with E4M3 tensor cores (Ada)
_NEAREST = 3  # names that a message suggests


@dataclass(frozen=True)
class Gpu:
    """One data centre GPU, as its vendor publishes it.

    Attributes:
        key: The word in recipes and on the command line, such as ``a100-sxm-80``.
        family: What several parts of one name share, such as ``a100``.
        name: The product's name, for tables.
        compute_capability: CUDA compute capability, major and minor.
        sms: Streaming multiprocessors.
        memory_gib: Device memory in GiB, as the datasheet sells it.
        bandwidth_gbs: Peak device memory bandwidth in 10^9 bytes a second.
        peaks: Peak dense 10^12 operations a second, by precision: fp32 without tensor cores, tf32, fp16, bf16, int8,
            fp8 and fp4 with them. A precision that the GPU lacks, or that is not published, is missing.
        l2_mib: Level 2 cache in MiB.
        nvlink_gbs: NVLink in 10^9 bytes a second, both directions together; 0 without.
        pcie_gbs: PCIe in 10^9 bytes a second, one direction, of 16 lanes.
        tdp_w: Board power in watts, the largest that is configurable.
        mig: MIG profiles, and how many instances of each alone fit; empty without MIG.
        mig_sms: Multiprocessors of one compute slice of a MIG instance; 0 without MIG.
        products: Beginnings of what ``nvidia-smi --query-gpu=name`` says, without a leading ``NVIDIA``.
        instances: Cloud to its instance types.
        sources: Field to where its figure was published.
    """

    key: str
    family: str
    name: str
    compute_capability: tuple[int, int]
    sms: int
    memory_gib: int
    bandwidth_gbs: float
    peaks: Mapping[str, float] = field(compare=False)
    l2_mib: float
    nvlink_gbs: float
    pcie_gbs: float
    tdp_w: int
    mig: Mapping[str, int] = field(compare=False)
    products: tuple[str, ...]
    instances: Mapping[str, tuple[str, ...]] = field(compare=False)
    sources: Mapping[str, str] = field(compare=False)
    mig_sms: int = 0

    @property
    def sm(self) -> str:
        """``sm86`` for compute capability 8.6: what plan files are called by."""
        return "sm{}{}".format(*self.compute_capability)

    @property
    def compute(self) -> str:
        """``8.6``, the key of Triton's ``cc_model_filenames``."""
        return "{}.{}".format(*self.compute_capability)

    @property
    def node_label(self) -> str:
        """What GPU feature discovery writes to a node's label ``nvidia.com/gpu.product``, such as ``NVIDIA-A10G``."""
        product = self.products[0].replace(" ", "-")
        return product if product.startswith("Tesla-") else f"NVIDIA-{product}"


@dataclass(frozen=True)
class Price:
    """The default price of an hour of one GPU.

    Attributes:
        usd_per_hour: US dollars an hour for one GPU: the instance's price over its GPUs.
        instance: The instance type.
        gpu_count: GPUs of that instance.
        dated: Year and month of the list price.
        source: Where and on what terms.
    """

    usd_per_hour: float
    instance: str
    gpu_count: int
    dated: str
    source: str


def all() -> tuple[Gpu, ...]:  # noqa: A001 - reads as gpus.all()
    """Every GPU of the catalogue, in the order of its file."""
    return tuple(_by_key().values())


def get(name: str) -> Gpu:
    """The GPU of a key, in any case; of a family such as ``a100`` its smallest and slowest part.

    Raises:
        InputError: No GPU has that name; the message suggests the nearest ones.
    """
    return members(name)[0]


def members(name: str) -> tuple[Gpu, ...]:
    """The GPU of a key, or all parts that a shorter name fits: ``h100`` is PCIe, SXM and NVL, ``a100-80`` PCIe and SXM.

    The least memory and speed come first.

    Raises:
        InputError: No GPU has that name; the message suggests the nearest ones.
    """
    words = [word.removesuffix("gb") or word for word in re.split(r"[\s_-]+", name.strip().lower())]
    slug = "-".join(words)
    if slug in _by_key():
        return (_by_key()[slug],)
    parts = [gpu for gpu in all() if words[0] == gpu.family and set(words[1:]) <= set(gpu.key.split("-"))]
    if not parts:
        raise _unknown(name, slug)
    return tuple(sorted(parts, key=lambda gpu: (gpu.memory_gib, gpu.bandwidth_gbs, gpu.tdp_w)))


def get_all(names: Sequence[str]) -> list[Gpu]:
    """Several by name, in their order and each once.

    Raises:
        InputError: A name is not known.
    """
    unique = {gpu.key: gpu for gpu in (get(name) for name in names)}
    return list(unique.values())


def by_product(product: str) -> Gpu | None:
    """The GPU behind a product name as ``nvidia-smi`` says it; None where it is not in the catalogue.

    A product that names no memory and no form (``NVIDIA A100``) is the smallest part of its family.
    """
    words = product.removeprefix("NVIDIA ").replace("-", " ").lower().split()
    for gpu in all():
        for known in gpu.products:
            parts = known.replace("-", " ").lower().split()
            if words[: len(parts)] == parts:
                return gpu
    family = "-".join(words[:1])
    return members(family)[0] if family in {gpu.family for gpu in all()} else None


def uncatalogued(product: str, compute_capability: tuple[int, int]) -> Gpu:
    """A GPU that the catalogue lacks, of which only this is known: engines can be built for it, nothing predicted."""
    return Gpu(product, product, product, compute_capability, 0, 0, 0, {}, 0, 0, 0, 0, {}, (product,), {}, {})


def names() -> tuple[str, ...]:
    """What :func:`get` takes: families, and the keys of those that have several parts."""
    return tuple(dict.fromkeys(name for gpu in all() for name in (gpu.family, gpu.key)))


def price(gpu: Gpu) -> Price | None:
    """The dated default price of one GPU; None where there is none, and the user has to say one."""
    table = _data()["prices"]
    entry = table["instances"].get(gpu.key)
    if entry is None:
        return None
    return Price(entry["hour"] / entry["gpus"], entry["instance"], entry["gpus"], table["dated"], table["source"])


def _unknown(name: str, slug: str) -> InputError:
    # Nearest by spelling, and before that those that hold the word whole: "a100 80gb", "tesla-t4".
    known = names()
    holding = [key for key in known if any(part == key for part in slug.split("-"))]
    near = list(dict.fromkeys([*holding, *difflib.get_close_matches(slug, known, n=_NEAREST, cutoff=0.5)]))[:_NEAREST]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(f"there is no GPU {name!r} here", f"{hint}known are {', '.join(known)}")


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files("tritonkit").joinpath("gpus.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


@functools.cache
def _by_key() -> Mapping[str, Gpu]:
    data = _data()
    return {entry["key"]: _gpu(entry, data["sources"]) for entry in data["gpus"]}


def _gpu(entry: Mapping[str, Any], sources: Mapping[str, str]) -> Gpu:
    major, minor = entry["compute_capability"]
    datasheet = ("memory_gib", "bandwidth_gbs", "peaks", "nvlink_gbs", "pcie_gbs", "tdp_w")
    published = {
        **dict.fromkeys(datasheet, sources[entry["figures"]]),
        **dict.fromkeys(("sms", "l2_mib"), sources[entry["cache"]]),
        **{cloud: sources[cloud] for cloud in entry["instances"]},
        "mig": sources["mig"],
        "mig_sms": sources["mig_sms"],
        "compute_capability": sources["cuda"],
    }
    return Gpu(
        key=entry["key"],
        family=entry["family"],
        name=entry["name"],
        compute_capability=(major, minor),
        sms=entry["sms"],
        memory_gib=entry["memory_gib"],
        bandwidth_gbs=entry["bandwidth_gbs"],
        peaks=entry["peaks"],
        l2_mib=entry["l2_mib"],
        nvlink_gbs=entry["nvlink_gbs"],
        pcie_gbs=entry["pcie_gbs"],
        tdp_w=entry["tdp_w"],
        mig=entry["mig"],
        products=tuple(entry["products"]),
        instances={cloud: tuple(kinds) for cloud, kinds in entry["instances"].items()},
        sources=published,
        mig_sms=entry.get("mig_sms", 0),
    )
