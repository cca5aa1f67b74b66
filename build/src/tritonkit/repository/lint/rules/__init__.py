"""The rules, one module a family; importing this package registers all of them."""

from tritonkit.repository.lint.rules import (
    batching,
    config,
    engines,
    ensembles,
    files,
    graph,
    layout,
    operators,
    padding,
    precision,
    python,
    releases,
    resources,
    schema,
    sequences,
    sizes,
    tensors,
    warmup,
)

FAMILIES = (
    layout, files, config, tensors, graph, batching, sequences, warmup, ensembles, engines, precision, resources,
    sizes, padding, python, releases, schema, operators,
)  # fmt: skip
