"""Which of the listed processes is this one, and how many others there are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.devices.neighbours import Neighbours

US, OLD, OTHER, THIRD = 200, 100, 300, 400
Lists = Sequence[Sequence[int] | None]


def _counts(before: Sequence[int] | None, *later: Sequence[int] | None) -> list[int]:
    """What is counted with each later list; the first of them comes with our own context."""
    lists = iter([before, later[0], *later])
    neighbours = Neighbours(lambda: next(lists))
    neighbours.note_own_context()
    return [neighbours.count() for _ in later]


@pytest.mark.parametrize(
    ("before", "later", "counts"),
    [
        # Alone, then with neighbours that come and go.
        ([], [[US]], [0]),
        ([], [[US], [US, OTHER], [US, OTHER, THIRD], [US]], [0, 1, 2, 0]),
        # A neighbour at the start: it stays, or it leaves later.
        ([OLD], [[OLD, US], [OLD, US], [US], [US]], [1, 1, 0, 0]),
        # It left while our context was made: the number of processes is the same.
        ([OLD], [[US], [US], [OTHER, US]], [0, 0, 1]),
        ([OLD, OTHER], [[US, OTHER], [US]], [1, 0]),
        # One came while our context was made.
        ([], [[US, OTHER], [US], [US, OTHER]], [1, 0, 1]),
        ([OLD], [[OTHER, US], [US]], [1, 0]),
    ],
)
def test_where_this_process_is_listed_all_others_are_neighbours(
    before: list[int], later: Lists, counts: list[int]
) -> None:
    assert _counts(before, *later) == counts


def test_where_this_process_is_not_listed_all_are_neighbours() -> None:
    """As in some containers."""
    assert _counts([], [], [OTHER], [OTHER, THIRD], []) == [0, 1, 2, 0]
    # One of them came while our context was made.
    assert _counts([OLD], [OLD, OTHER], [OLD], []) == [1, 1, 0]


def test_where_ids_are_shared_this_process_is_one_of_those_that_are_listed() -> None:
    """As in a sandbox, whose processes the driver takes for one."""
    assert _counts([OLD], [OLD], [OLD], [OLD, OTHER]) == [0, 0, 1]
    assert _counts([OLD], [OLD, OLD], [OLD]) == [1, 0]


def test_an_empty_list_shows_that_what_was_taken_for_us_was_a_neighbour() -> None:
    assert _counts([OTHER], [OTHER], [], [THIRD]) == [0, 0, 1]


def test_a_driver_that_does_not_list_processes_shows_no_neighbour() -> None:
    assert _counts(None, None, None) == [0, 0]
    # It answers later: the first list decides.
    assert _counts([], None, [US], [US, OTHER]) == [0, 0, 1]
    assert _counts([], [US], None, [US, OTHER]) == [0, 0, 1]
