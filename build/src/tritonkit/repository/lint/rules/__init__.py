"""The rules, one module a family; importing this package registers all of them."""

from tritonkit.repository.lint.rules import (
    batching,
    config,
    devices,
    engines,
    ensembles,
    files,
    forests,
    graph,
    language,
    layout,
    operators,
    padding,
    precision,
    python,
    queues,
    releases,
    resources,
    schema,
    sequence_graph,
    sequences,
    sizes,
    tensors,
    warmup,
)

FAMILIES = (
    layout, files, config, tensors, graph, batching, sequences, sequence_graph, warmup, ensembles, engines, precision,
    resources, sizes, padding, python, queues, releases, schema, operators,
    devices, language, forests,
)  # fmt: skip
