"""Which prepared sizes a batch is run at: the cheapest cover of its rows, by what each size costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Lengths = tuple[int, ...]  # of the padded dimensions, in their order


class Size(NamedTuple):
    """A prepared size: rows, and the length of every padded dimension."""

    batch: int
    lengths: Lengths


@dataclass(frozen=True)
class Piece:
    """Neighbouring rows of a group that run together: from ``start``, ``rows`` of them, padded up to ``size``."""

    start: int
    rows: int
    size: Size


class Planner:
    """Plans batches over the prepared sizes.

    Args:
        batches: Prepared batch sizes, rising.
        lengths: For every padded dimension, its prepared lengths, rising.
        most_rows: Rows in one batch at most.
        cost: What running a size takes, in any unit; larger batches must be prepared for every length.
    """

    def __init__(
        self, batches: Sequence[int], lengths: Sequence[Sequence[int]], most_rows: int, cost: Callable[[Size], float]
    ) -> None:
        self._batches = tuple(batches)
        self._lengths = tuple(tuple(sizes) for sizes in lengths)
        self._most_rows = most_rows
        self._cost = cost
        self._covers: dict[Lengths, list[tuple[float, int]]] = {}
        self._pieces: dict[tuple[int, Lengths], tuple[Piece, ...]] = {}

    def fit(self, lengths: Lengths) -> Lengths:
        """The prepared lengths that hold a request's own.

        Raises:
            ValueError: A length is above the largest prepared length.
        """
        return tuple(self._fit(index, length) for index, length in enumerate(lengths))

    def _fit(self, index: int, length: int) -> int:
        for size in self._lengths[index]:
            if size >= length:
                return size
        raise ValueError(f"a length of {length} is above the largest prepared one, {self._lengths[index][-1]}")

    def pieces(self, rows: int, lengths: Lengths) -> tuple[Piece, ...]:
        """The cheapest prepared sizes that together hold some rows, largest first."""
        pieces = self._pieces.get((rows, lengths))
        if pieces is None:
            pieces = self._pieces[rows, lengths] = self._cut(rows, lengths)
        return pieces

    def groups(self, rows: Mapping[Lengths, int]) -> list[tuple[Lengths, list[Lengths]]]:
        """Which rows run at a common length: the cheapest way to join the prepared lengths of a batch.

        Short rows run with long ones where a size of their own would cost more than the padding.

        Args:
            rows: Prepared lengths to how many rows fit them best.

        Returns:
            The length that each group runs at, and the lengths whose rows it holds.
        """
        keys = sorted(rows)
        if len(keys) == 1:
            return [(keys[0], keys)]
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(keys) + 1):
            options = []
            common, count = keys[end - 1], 0
            for start in range(end - 1, -1, -1):
                common = tuple(map(max, common, keys[start]))
                count += rows[keys[start]]
                options.append((best[start][0] + self._cover(common)[count][0], start))
            best.append(min(options))
        groups = []
        end = len(keys)
        while end:
            start = best[end][1]
            members = keys[start:end]
            groups.append((tuple(map(max, *members)) if len(members) > 1 else members[0], members))
            end = start
        return groups

    def _cover(self, lengths: Lengths) -> list[tuple[float, int]]:
        """For every number of rows, the least cost, and the batch that the cheapest cover begins with."""
        cover = self._covers.get(lengths)
        if cover is None:
            costs = [(batch, self._cost(Size(batch, lengths))) for batch in self._batches]
            cover = [(0.0, 0)]
            for rows in range(1, self._most_rows + 1):
                least, larger = min((cost + cover[max(rows - batch, 0)][0], -batch) for batch, cost in costs)
                cover.append((least, -larger))  # of equals the one with fewer runs
            self._covers[lengths] = cover
        return cover

    def _cut(self, rows: int, lengths: Lengths) -> tuple[Piece, ...]:
        cover = self._cover(lengths)
        batches, left = [], rows
        while left > 0:
            batches.append(cover[left][1])
            left -= batches[-1]
        pieces, start = [], 0
        for batch in sorted(batches, reverse=True):
            pieces.append(Piece(start, min(batch, rows - start), Size(batch, lengths)))
            start += pieces[-1].rows
        return tuple(pieces)
