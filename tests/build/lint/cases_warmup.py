"""Warm-up requests."""

from __future__ import annotations

from .lab import BATCHED, XY, Case, python

ZERO = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } }'
FILE = ZERO.replace("zero_data: true", 'input_data_file: "x"')
STRINGS = FILE.replace("FP32", "STRING")


def warm(inputs: str = ZERO, size: int = 1, head: str = BATCHED + XY) -> str:
    return f'{head}model_warmup {{ name: "w" batch_size: {size} {inputs} }}\n'


def text(*items: bytes) -> bytes:
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


S = BATCHED + XY.replace("FP32", "STRING")
CASES = [
    Case("TK070", python(warm(ZERO.replace('"x"', '"q"'))), python(warm()), "missing required input(s) ['x']", "missing"),
    Case("TK071", python(warm(ZERO.replace("FP32", "INT32"))), python(warm()), "data-type is 'INT32'", "type"),
    Case("TK071", python(warm(ZERO.replace("dims: 4", "dims: 5"))), python(warm()), "unexpected shape for input", "dims"),
    Case("TK071", python(warm(ZERO.replace("dims: 4", "dims: [1, 4]"))), python(warm()), "unexpected shape", "rank"),
    Case("TK071", python(warm(ZERO.replace("dims: 4", "dims: -1"))), python(warm()), "all variable-size dimensions", "wild"),
    Case("TK071", python(warm(ZERO.replace("zero_data: true", ""))), python(warm()), "to have input_data_type set", "data"),
    Case("TK072", python(warm(FILE)), python(warm(FILE), warmup__x=bytes(16)), "failed to open text file", "missing"),
    Case("TK072", python(warm(FILE), warmup__x=bytes(8)), python(warm(FILE), warmup__x=bytes(16)), "expects 16 bytes", "short"),
    Case("TK072", python(warm(STRINGS, head=S), warmup__x=b"abc"),
         python(warm(STRINGS, head=S), warmup__x=text(b"a", b"b", b"", b"d")), "string length indicator", "strings"),
    Case("TK073", python(warm(size=8)), python(warm(size=4)), "batch size 8", "large", hangs=True),
    Case("TK073", python(warm(size=2, head=XY)), python(warm(size=1, head=XY)), "batch size 2", "unbatched", hangs=True),
    Case("TK074", python(warm(size=0)), python(warm())),
]  # fmt: skip
