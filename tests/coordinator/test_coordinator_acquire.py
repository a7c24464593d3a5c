"""Which cells are chosen: by what is known, by doubt, by cost; and the arithmetic of the choice."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.plan import acquire
from coordinator.plan.acquire import METHODS, NOISE, Process, Task, choose
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.query import Rows, encode

CONFIG = KernelConfig(family="blas", kernel="numpy", cpu_threads=1)
SMALL = range(32, 64)
LARGE = range(2000, 2032)


def queries_of(cpu: Device, sizes: range) -> Rows:
    """Cubes of these sizes."""
    rows = []
    for size in sizes:
        gemm = Gemm(m=size, n=size, k=size, dtype="fp32", layout="nn")
        rows.append(encode(gemm, CONFIG, cpu))
    return np.array(rows, dtype=np.float32)


@pytest.fixture
def two_clusters(cpu: Device) -> Rows:
    """32 small cubes, then 32 large ones."""
    return np.concatenate([queries_of(cpu, SMALL), queries_of(cpu, LARGE)])


def nothing(queries: Rows) -> Rows:
    return queries[:0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_different_candidates_and_the_same_again(
    method: str, two_clusters: Rows
) -> None:
    doubt = np.ones(len(two_clusters))
    first = choose(two_clusters, nothing(two_clusters), 20, method, doubt=doubt, seed=3)
    again = choose(two_clusters, nothing(two_clusters), 20, method, doubt=doubt, seed=3)
    assert first.tolist() == again.tolist()
    assert len(set(first.tolist())) == 20
    assert first.min() >= 0 and first.max() < 64


@pytest.mark.parametrize("method", METHODS)
def test_never_more_than_there_are(method: str, two_clusters: Rows) -> None:
    few = two_clusters[:3]
    assert sorted(choose(few, nothing(few), 10, method).tolist()) == [0, 1, 2]
    assert choose(nothing(few), few, 10, method).tolist() == []
    assert choose(few, nothing(few), 0, method).tolist() == []


@pytest.mark.parametrize("method", ["planner", "doubted", "logdet"])
def test_goes_where_nothing_is_known(method: str, two_clusters: Rows) -> None:
    known, others = two_clusters[:16], two_clusters[16:]
    chosen = choose(others, known, 2, method)
    assert (chosen >= 16).all()


@pytest.mark.parametrize("method", ["planner", "logdet", "grid"])
def test_the_first_two_are_of_both_clusters(method: str, two_clusters: Rows) -> None:
    chosen = choose(two_clusters, nothing(two_clusters), 2, method)
    assert sorted(chosen // 32) == [0, 1]


@pytest.mark.parametrize("method", ["doubted", "doubt"])
def test_goes_where_the_model_is_in_doubt(method: str, two_clusters: Rows) -> None:
    doubt = np.where(np.arange(64) < 32, 0.05, 0.5)
    assert choose(two_clusters, nothing(two_clusters), 1, method, doubt=doubt)[0] >= 32
    assert choose(two_clusters, nothing(two_clusters), 1, method, doubt=doubt[::-1])[0] < 32


@pytest.mark.parametrize("method", ["planner", "logdet", "doubt"])
def test_takes_the_cheaper_of_equals(method: str, two_clusters: Rows) -> None:
    twins = np.concatenate([two_clusters, two_clusters])
    seconds = np.repeat([3.0, 1.0], 64)
    chosen = choose(twins, nothing(twins), 8, method, doubt=np.ones(128), seconds=seconds)
    assert (chosen >= 64).all()


def test_the_planner_takes_the_middle_and_logdet_the_rim(cpu: Device) -> None:
    """One answer says most about all from the middle, and differs most at an end."""
    line = queries_of(cpu, range(64, 1024, 32))
    middle = choose(line, nothing(line), 1, "planner")[0]
    assert 5 < middle < 25


def test_unknown_method() -> None:
    with pytest.raises(
        InputError, match="use one of planner, doubted, logdet, doubt, grid, random"
    ):
        choose(np.zeros((0, 34), dtype=np.float32), np.zeros((0, 34), dtype=np.float32), 1, "best")


def test_gains_are_what_the_variances_fall_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquire, "FEATURES", 64)
    rng = np.random.default_rng(0)
    task = Task(
        inputs=rng.standard_normal((30, 3)).astype(np.float32),
        known=rng.standard_normal((5, 3)).astype(np.float32),
        doubt=np.ones(30),
        seconds=np.ones(30),
        rng=rng,
    )
    process = Process(task, rng.uniform(0.5, 2, 30))
    for candidate in (3, 17, 3):
        before = process.variances().sum()
        gain = process.gains()[candidate]
        process.measure(candidate)
        assert before - process.variances().sum() == pytest.approx(gain, abs=2e-4)
    assert process.variances()[3] < 0.5 * NOISE
