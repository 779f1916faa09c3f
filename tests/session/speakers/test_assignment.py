"""The assignment problem, against every permutation."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from ssasr.session.speakers.assignment import best_assignment


def exhaustive(gains):
    rows, columns = len(gains), len(gains[0])
    if rows > columns:
        return exhaustive(list(zip(*gains, strict=True)))
    return max(
        sum(row[column] for row, column in zip(gains, chosen, strict=True))
        for chosen in permutations(range(columns), rows)
    )


@st.composite
def matrices(draw):
    columns = draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 20), min_size=columns, max_size=columns)
    return draw(st.lists(row, min_size=1, max_size=5))


@given(matrices())
def test_no_permutation_is_worth_more(gains):
    pairs = best_assignment(gains)
    assert len(pairs) == min(len(gains), len(gains[0]))
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert sum(gains[row][column] for row, column in pairs) == exhaustive(gains)


def test_nothing_to_assign():
    assert best_assignment([]) == []
    assert best_assignment([[]]) == []
