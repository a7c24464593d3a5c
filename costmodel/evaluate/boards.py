"""Single boards: who measured a row, and folds that leave boards out.

    weight of a board = its share of the rows + its share of the rows with power

Two boards of one type differ: in power by some per cent, in runtime by less. A model that is tested
on a board whose rows it was trained on says nothing of that difference. Here whole boards are left
out: a board of many rows alone, boards of few rows several at once, so that there are never more
fits than in other cross-validations. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from costmodel.dataset import Mask, Names, TrainingSet


def boards(data: TrainingSet) -> Names:
    """[n_rows] The board (`device_uuid`) of each row; on a CPU, the host.

    None where the row names no board, or where it is the only one of its type: without its rows
    the whole type would be unknown, which is another question.
    """
    names = np.full(len(data), None, dtype=object)
    rows = data.keys("device", "device_uuid")
    boards_of_type: Counter[str] = Counter(device for device, uuid in set(rows) if uuid)
    for i, (device, uuid) in enumerate(rows):
        if uuid and boards_of_type[device] > 1:
            names[i] = uuid
    return names


def board_folds(data: TrainingSet, most: int) -> Names:
    """[n_rows] The group of boards that each row is left out with, for `groups.split`.

    The heaviest board is dealt first, and each board into the group that is lightest so far.

    Args:
        most: groups at most; with fewer boards each is a group of its own.
    """
    names = boards(data)
    weights = _weights(names, ~np.isnan(data.measured["power_w"]))
    sums = [0.0] * min(most, len(weights))
    group_of_board: dict[str | None, str | None] = {None: None}
    for board in sorted(weights, key=lambda name: (-weights[name], name)):
        lightest = int(np.argmin(sums))
        sums[lightest] += weights[board]
        group_of_board[board] = f"boards {lightest}"
    return np.array([group_of_board[name] for name in names], dtype=object)


def _weights(names: Names, has_power: Mask) -> dict[str, float]:
    """Board -> its weight; rows of None do not count."""
    rows = Counter(filter(None, names))
    metered = Counter(filter(None, names[has_power]))
    weights: dict[str, float] = {}
    for board, count in rows.items():
        of_power = metered[board] / max(1, metered.total())
        weights[board] = count / rows.total() + of_power
    return weights
