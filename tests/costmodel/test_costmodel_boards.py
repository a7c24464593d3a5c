"""Boards that are left out: which rows have one, how boards are dealt, what training still had."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.accuracy import Accuracy, accuracy, cross_validation
from costmodel.evaluate.baselines import BASELINES
from costmodel.evaluate.boards import board_folds, boards
from costmodel.evaluate.generalisation import generalisation
from costmodel.evaluate.groups import FOLDS, split
from costmodel.evaluate.overlap import overlap, overlap_of_folds
from gemmcast.rows import Row
from tests.costmodel.fake_model import MedianModel

SIZES = {"A": 60, "B": 50, "C": 40, "D": 20, "E": 20, "F": 20, "G": 20, "H": 10}
"""Board -> its rows."""
METERED = {"D": 20, "A": 10}
"""Board -> its rows with power."""
KERNELS = (
    ("cublas", "", 0),
    ("cublas", "", 7),
    ("cublaslt", "default", 7),
    ("cublaslt", "heuristic-3", 7),
    ("cublaslt", "heuristic-4", 7),
    ("cublaslt", "enumerated-3", 7),
    ("tiled", "", 7),
)
"""Family, kernel and algorithm."""
KINDS = ["cublas", "cublaslt default", "cublaslt enumerated-N", "cublaslt heuristic-N"]


@pytest.fixture(scope="module", autouse=True)
def _no_forest() -> Iterator[None]:
    """It takes seconds, and no test here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASELINES, "paper_forest", BASELINES["roofline"])
        yield


@pytest.fixture(scope="module")
def rows(power_samples: pa.Table) -> list[Row]:
    listed: list[Row] = power_samples.to_pylist()
    return listed


@pytest.fixture(scope="module")
def data(rows: list[Row], power_samples: pa.Table) -> TrainingSet:
    """The rows of one type, dealt to eight boards; few of them with power."""
    names = [board for board, count in SIZES.items() for _ in range(count)]
    seen: Counter[str] = Counter()
    dealt: list[Row] = []
    for row, board in zip(rows, names, strict=True):
        seen[board] += 1
        power_w = row["power_w"] if seen[board] <= METERED.get(board, 0) else None
        dealt.append({**row, "device_uuid": board, "power_w": power_w})
    return _training_set(dealt, power_samples)


def _training_set(rows: list[Row], like: pa.Table) -> TrainingSet:
    return training_set(pa.Table.from_pylist(rows, schema=like.schema))


def test_a_row_has_a_board_where_its_type_has_several(
    rows: list[Row], power_samples: pa.Table
) -> None:
    named = [("H100", "A"), ("H100", "B"), ("H100", ""), ("H200", "C"), ("H200", "C")]
    dealt = []
    for row, (device, uuid) in zip(rows, named, strict=False):
        dealt.append({**row, "device": device, "device_uuid": uuid})
    assert boards(_training_set(dealt, power_samples)).tolist() == ["A", "B", None, None, None]


def test_boards_are_dealt_whole_by_their_rows_and_their_rows_with_power(
    data: TrainingSet,
) -> None:
    groups = board_folds(data, 3)
    uuids = data.column("device_uuid")
    group_of_board = dict(zip(uuids, groups, strict=True))
    assert [group_of_board[board] for board in uuids] == groups.tolist()
    dealt: dict[str, list[str]] = {}
    for board in SIZES:
        dealt.setdefault(group_of_board[board], []).append(board)
    # D has two thirds of the power, A the other third: 0.75 and 0.58 beside 0.21 of B
    assert sorted(dealt.values()) == [["A", "H"], ["B", "C", "E", "F", "G"], ["D"]]


def test_with_few_boards_each_is_left_out_alone(data: TrainingSet) -> None:
    few = data.take(np.isin(data.column("device_uuid"), ["A", "B", "C"]))
    groups = board_folds(few, FOLDS)
    assert len(set(groups)) == len(set(zip(groups, few.column("device_uuid"), strict=True))) == 3


def test_the_deal_does_not_depend_on_the_order_of_the_rows(data: TrainingSet) -> None:
    order = np.random.default_rng(1).permutation(len(data))
    assert (board_folds(data, 3)[order] == board_folds(data.take(order), 3)).all()


def test_no_model_saw_a_row_of_the_boards_that_it_is_tested_with(data: TrainingSet) -> None:
    trained: list[set[str]] = []

    def fit(training: TrainingSet) -> MedianModel:
        trained.append(set(training.column("device_uuid")))
        return MedianModel(training)

    tested = cross_validation(data, "board", fit)
    assert len(trained) == FOLDS and len(tested.data) == len(data)
    left_out = [set(SIZES) - seen for seen in trained]
    assert sorted(board for fold in left_out for board in fold) == sorted(SIZES)
    assert tested.protocol.startswith("8 boards in 5-fold, grouped by board")
    assert tested.overlap["board"] == 0 < tested.overlap["layer"]


def test_the_only_board_of_a_type_stays_in_training(
    data: TrainingSet, rows: list[Row], power_samples: pa.Table
) -> None:
    single = [{**row, "device": "Single", "device_uuid": "S"} for row in rows[:30]]
    both = _training_set([*data.table.to_pylist(), *single], power_samples)
    tested = cross_validation(both, "board", MedianModel)
    assert set(tested.data.column("device_uuid")) == set(SIZES)


def test_what_training_had_is_counted_row_by_row(data: TrainingSet) -> None:
    cells = data.take(np.array([0, 1, 2, 3]))
    first = np.array([True, True, False, False])
    assert overlap_of_folds(cells, [(first, ~first)])["cell"] == 0
    twice = data.take(np.array([0, 1, 0, 2]))
    shares = overlap_of_folds(twice, [(first, ~first)])
    assert shares["cell"] == 50
    assert shares == overlap(twice.take(first), twice.take(~first))
    both_ways = overlap_of_folds(twice, split(np.array(["x", "x", "y", "y"], dtype=object), 2))
    assert both_ways["cell"] == 50


def test_a_card_scores_every_board_once_in_one_entry(data: TrainingSet) -> None:
    scored = generalisation(data, MedianModel)["board"]
    assert scored.test_rows == len(data)
    assert scored.scores["runtime_us"]["model"].rows == len(data)
    assert scored.scores["power_w"]["model"].rows == sum(METERED.values())
    assert "8 boards in 5 groups" in scored.description
    # the fold of A
    assert scored.train_rows == len(data) - SIZES["A"]


def test_each_board_has_its_errors_with_their_sign(data: TrainingSet) -> None:
    printed = accuracy(cross_validation(data, "board", MedianModel))
    assert set(printed.boards) == set(SIZES)
    for board, count in SIZES.items():
        assert printed.boards[board]["runtime_us"]["model"]["rows"] == count
    power = printed.boards["D"]["power_w"]["model"]
    of_board = data.measured["power_w"][data.column("device_uuid") == "D"]
    others = data.measured["power_w"][data.column("device_uuid") == "A"]
    assert power["bias"] == pytest.approx(np.median(100 * (np.nanmedian(others) / of_board - 1)))


@pytest.fixture(scope="module")
def of_libraries(rows: list[Row], power_samples: pa.Table) -> TrainingSet:
    """The rows as if of libraries' kernels, one after the other."""
    dealt: list[Row] = []
    for row, (family, kernel, algo_id) in zip(rows, itertools.cycle(KERNELS), strict=False):
        named = {"family": family, "kernel": kernel, "algo_id": algo_id, "block_threads": 0}
        dealt.append({**row, **named, "tile_m": 0, "tile_n": 0, "tile_k": 0})
    return _training_set(dealt, power_samples)


@pytest.fixture(scope="module")
def of_named(of_libraries: TrainingSet) -> Accuracy:
    """A model of them that answers twice as long where a query has no algorithm."""
    return accuracy(cross_validation(of_libraries, "shape", MedianModel))


def test_a_library_s_kernel_is_scored_with_its_knobs_and_by_name_alone(
    of_libraries: TrainingSet, of_named: Accuracy
) -> None:
    assert list(of_named.by_name) == KINDS
    for kind, table in of_named.by_name.items():
        with_knobs = table["runtime_us"]["model"]
        alone = table["runtime_us"]["by_name"]
        assert with_knobs["rows"] == alone["rows"] > 0, kind
        assert 100 + alone["bias"] == pytest.approx(2 * (100 + with_knobs["bias"]))

    # a row of cuBLAS without knobs has nothing to leave out
    is_cublas = of_libraries.column("family") == "cublas"
    has_knobs = of_libraries.column("algo_id") > 0
    scored = of_named.by_name["cublas"]["runtime_us"]["model"]["rows"]
    assert scored == (is_cublas & has_knobs).sum()


def test_names_and_the_library_s_own_choices_are_two_methods(
    of_libraries: TrainingSet, of_named: Accuracy
) -> None:
    kernels = of_libraries.column("kernel").astype(str)
    is_named = np.char.find(kernels, "-") > 0
    is_default = (kernels == "default") | (of_libraries.column("family") == "cublas")
    has_knobs = of_libraries.column("algo_id") > 0
    of_all = of_named.targets["runtime_us"]
    assert of_all["by_name"]["rows"] == is_named.sum()
    assert of_all["unresolved"]["rows"] == (is_default & has_knobs).sum()
