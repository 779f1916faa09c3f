"""The assignment problem: pairs of rows and columns that are worth most together. Pure.

The Hungarian method with potentials (Jonker and Volgenant), cubic in the number of rows; there are
as many as speakers in a session. A library for it would be larger than the gateway.
"""

from collections.abc import Sequence
from math import inf


def best_assignment(gains: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(row, column) pairs, each row and each column once at most, as many as there can be, whose
    gains have the greatest sum."""
    if not gains or not gains[0]:
        return []
    if len(gains) > len(gains[0]):
        turned = list(zip(*gains, strict=True))
        return sorted((row, column) for column, row in best_assignment(turned))
    rows, columns = len(gains), len(gains[0])
    of_row, of_column = [0.0] * (rows + 1), [0.0] * (columns + 1)
    taken = [0] * (
        columns + 1
    )  # the row of each column; 0: none, and column 0 is where a row waits
    for row in range(1, rows + 1):
        taken[0] = row
        _augment(gains, of_row, of_column, taken)
    return sorted(
        (taken[column] - 1, column - 1) for column in range(1, columns + 1) if taken[column]
    )


def _augment(
    gains: Sequence[Sequence[float]],
    of_row: list[float],
    of_column: list[float],
    taken: list[int],
) -> None:
    """Find a column for the row that waits, along the path that loses least."""
    columns = len(gains[0])
    least, came_from = [inf] * (columns + 1), [0] * (columns + 1)
    done = [False] * (columns + 1)
    at = 0
    while taken[at]:
        done[at] = True
        row, step, following = taken[at], inf, 0
        for column in range(1, columns + 1):
            if done[column]:
                continue
            loss = -gains[row - 1][column - 1] - of_row[row] - of_column[column]
            if loss < least[column]:
                least[column], came_from[column] = loss, at
            if least[column] < step:
                step, following = least[column], column
        for column in range(columns + 1):
            if done[column]:
                of_row[taken[column]] += step
                of_column[column] -= step
            else:
                least[column] -= step
        at = following
    while at:
        taken[at] = taken[came_from[at]]
        at = came_from[at]
