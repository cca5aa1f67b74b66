"""Finds the dims of a model's outputs by running it at different sizes: what stays, what moves, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Dims = tuple[int | str, ...]
Shapes = Mapping[str, tuple[int, ...]]
# Runs a model: batch size, and the size of every named dimension, to the shapes of its outputs.
Run = Callable[[int, Mapping[str, int]], Shapes]

# Two batches that are rarely anything else's size, and sizes of named dimensions: small ones, then such as images have.
BATCHES = (2, 5)
SIZES = ((8, 12), (32, 64), (224, 256))


class NoBatch(Exception):
    """An output whose rows are not the batch's.

    Args:
        output: Its name.
        why: What it has instead, as a sentence.
    """

    def __init__(self, output: str, why: str) -> None:
        super().__init__(why)
        self.output = output
        self.why = why


def output_dims(run: Run, names: Sequence[str], *, batched: bool, most: int | None = None) -> dict[str, Dims | NoBatch]:
    """Every output's dims, without the batch dimension; a :class:`NoBatch` for one that cannot be batched.

    Args:
        run: The model.
        names: The inputs' named dimensions.
        batched: Whether the first dimension of everything is to be the batch.
        most: The largest size that a named dimension may have, if it is known.

    Raises:
        Exception: ``run`` fails at all sizes; this is the exception of the last ones.
    """
    small, large, first = _sizes(run, names, most)
    more_rows = run(BATCHES[1], dict.fromkeys(names, small)) if batched else first
    longer = {name: run(BATCHES[0], dict.fromkeys(names, small) | {name: large}) for name in names}
    return {
        output: _dims(output, [first[output], more_rows[output]], {n: longer[n][output] for n in names}, (small, large),
                      batched=batched)
        for output in first
    }  # fmt: skip


def _sizes(run: Run, names: Sequence[str], most: int | None) -> tuple[int, int, Shapes]:
    """The first sizes that the model accepts, and its outputs' shapes at the smaller one."""
    choices = [sizes for sizes in SIZES if most is None or sizes[1] <= most] or [(max((most or 2) - 1, 1), most or 2)]
    for number, (small, large) in enumerate(choices if names else choices[:1], 1):
        try:
            return small, large, run(BATCHES[0], dict.fromkeys(names, small))
        except Exception:
            if number == len(choices) or not names:
                raise
    raise AssertionError  # the loop returns or raises


def _dims(
    output: str,
    by_batch: Sequence[tuple[int, ...]],
    longer: Mapping[str, tuple[int, ...]],
    sizes: tuple[int, int],
    *,
    batched: bool,
) -> Dims | NoBatch:
    first, more_rows = by_batch
    if batched and (not first or (first[0], more_rows[0]) != BATCHES):
        if not first:
            return NoBatch(output, f"output {output!r} is a number for the whole batch")
        return NoBatch(output, f"output {output!r} has shape {list(first)} for a batch of {BATCHES[0]}")
    if batched and first[1:] != more_rows[1:]:
        return NoBatch(
            output,
            f"output {output!r} has shape {list(first)} for a batch of {BATCHES[0]} and {list(more_rows)} for "
            f"{BATCHES[1]}: each row looks at all others",
        )
    dims: list[int | str] = []
    for axis in range(int(batched), len(first)):
        moving = [name for name, shape in longer.items() if len(shape) != len(first) or shape[axis] != first[axis]]
        if not moving and first[axis]:
            dims.append(first[axis])
        elif len(moving) == 1 and (first[axis], longer[moving[0]][axis]) == sizes:
            dims.append(moving[0])
        else:
            dims.append(f"{output}_{axis - int(batched)}")
    return tuple(dims)
