"""What is measured next: a model's guesses, corrected by readings."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log

import pytest

from coordinator.tune.guesses import next_guesses
from coordinator.tune.outcome import outcome_of
from coordinator.tune.problem import Problem, Rival
from coordinator.tune.search import most_of
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective
from gemmcast.tuned_entry import Cost
from tests.coordinator.tune_truths import TYPE, Truths, make_search, run

TIME = Objective.parse("time")
DEFAULT = KernelConfig(family="triton", kernel="matmul", tile_m=64, tile_n=128, stages=2)


def tiles(*, swizzle: int = 0) -> list[KernelConfig]:
    """36 configurations: the default's neighbours and others."""
    configs = []
    for tile_m in (16, 32, 64, 128, 256):
        for tile_n in (32, 64, 128, 256):
            for stages in (2, 5):
                configs.append(
                    KernelConfig(
                        family="triton",
                        kernel="matmul",
                        tile_m=tile_m,
                        tile_n=tile_n,
                        stages=stages,
                        swizzle=swizzle,
                    )
                )
    return [config for config in configs if config != DEFAULT]


def of_model(predicted: Mapping[KernelConfig, float], default_us: float = 1.0) -> Problem:
    """A problem of what a model predicts, the best guess first."""
    rivals = [Rival(config=one, predicted=Cost(runtime_us=us)) for one, us in predicted.items()]
    rivals.sort(key=lambda rival: rival.predicted.runtime_us or 0.0)
    return Problem(
        listed=ListedGemm(gemm=Gemm(m=1, n=16, k=16)),
        device_key=TYPE,
        default=Rival(config=DEFAULT, predicted=Cost(runtime_us=default_us)),
        rivals=tuple(rivals),
        possible=1 + len(rivals),
    )


def guessed(problem: Problem, readings: Mapping[KernelConfig, float], count: int) -> list[str]:
    """Texts of the next guesses; readings are costs over the default's."""
    differences = {config: log(ratio) for config, ratio in readings.items()}
    guesses = next_guesses(problem, differences, list(readings), count, TIME)
    return [str(rival.config) for rival in guesses]


def test_a_model_that_is_far_ahead_of_its_doubt_is_followed() -> None:
    problem = of_model({config: 0.5**i for i, config in enumerate(tiles())})
    first = [str(rival.config) for rival in problem.rivals[:4]]
    assert guessed(problem, {}, 4) == first


def test_guesses_of_one_turn_lie_apart() -> None:
    """Of equals it does not try one beside the other."""
    problem = of_model(dict.fromkeys(tiles(), 0.9))
    chosen = [KernelConfig.parse(text) for text in guessed(problem, {}, 4)]
    sizes = {(one.tile_m, one.tile_n, one.stages) for one in chosen}
    for one in sizes:
        for other in sizes - {one}:
            steps = [abs(log(a / b, 2)) for a, b in zip(one, other, strict=True)]
            assert sum(steps) >= 2


def test_readings_correct_the_neighbours() -> None:
    """The model is 30 % too optimistic about small tiles; two readings show it."""
    problem = of_model({one: 0.8 if one.tile_m < 64 else 0.9 for one in tiles()})
    small = [one for one in tiles() if one.tile_m == 16 and one.tile_n in (64, 128)]
    assert all("tile_m=16" in text or "tile_m=32" in text for text in guessed(problem, {}, 3))
    readings = dict.fromkeys(small, 1.1)
    readings[next(one for one in tiles() if one.tile_m == 256)] = 0.9
    assert not any("tile_m=16" in text for text in guessed(problem, readings, 6))


def test_what_takes_part_is_not_guessed_again() -> None:
    problem = of_model(dict.fromkeys(tiles(), 0.9))
    readings = dict.fromkeys(tiles()[:30], 1.0)
    left = guessed(problem, readings, 100)
    assert sorted(left) == sorted(map(str, tiles()[30:]))


def test_what_would_draw_too_much_comes_last() -> None:
    power_w = {config: 500.0 if config.tile_m < 256 else 300.0 for config in tiles()}
    rivals = [
        Rival(config=one, predicted=Cost(sustained_runtime_us=1.0, power_w=watts))
        for one, watts in power_w.items()
    ]
    listed = ListedGemm(gemm=Gemm(m=1, n=16, k=16))
    default = Rival(config=DEFAULT, predicted=Cost(sustained_runtime_us=1.0, power_w=300.0))
    problem = Problem(listed=listed, device_key=TYPE, default=default, rivals=tuple(rivals))
    guesses = next_guesses(problem, {}, (), 10, Objective.parse("time-under-watts=400"))
    frugal = [config for config, watts in power_w.items() if watts < 400]
    assert sorted(str(one.config) for one in guesses[: len(frugal)]) == sorted(map(str, frugal))
    rest = [config for config in tiles() if config not in frugal]
    assert [one.config for one in guesses[len(frugal) :]] == rest[: 10 - len(frugal)]


def test_bare_names_keep_the_order_of_the_library() -> None:
    names = [KernelConfig(family="cublaslt", kernel=f"heuristic-{i}") for i in range(1, 8)]
    problem = of_model({**dict.fromkeys(names, 1.0), **dict.fromkeys(tiles(), 1.3)})
    assert guessed(problem, {}, 4) == [str(name) for name in names[:4]]
    # One of them says nothing of another.
    assert guessed(problem, {names[0]: 1.2}, 3) == [str(name) for name in names[1:4]]


def true_ratio(config: KernelConfig) -> float:
    """The best is 256 x 32 with five stages."""
    steps = abs(log(config.tile_m / 256, 2)) + abs(log(config.tile_n / 32, 2))
    return 0.7 * exp(0.06 * (steps + (config.stages == 2)))


@pytest.mark.parametrize("is_replay", [False, True])
def test_the_best_is_found_where_the_model_ranks_it_last(is_replay: bool) -> None:
    groups = (0, 1, 2, 4, 8)
    configs = [one for group in groups for one in tiles(swizzle=group)]
    problem = of_model({one: 0.75 + 0.002 * one.tile_m**0.5 for one in configs})
    best = min(map(true_ratio, configs))
    ranked = [true_ratio(rival.config) for rival in problem.rivals]
    assert min(ranked[: most_of(8)]) > 1.2 * best
    truths = ByConfig({}, noise=0.003)
    search = make_search({TYPE: [problem]}, is_replay=is_replay)
    cells = run(search, truths)
    entry = outcome_of(search.races[TYPE][0]).entry
    assert true_ratio(entry.winner) < 1.01 * best
    # A tenth of what is possible.
    assert entry.measured <= 1 + most_of(8) <= 20
    if is_replay:
        ids = [cell.cell_id for round_cells in cells for cell in round_cells]
        assert len(set(ids)) == entry.measured


class ByConfig(Truths):
    """The default costs 1."""

    def ratio(self, cell: Cell) -> float:
        return 1.0 if cell.config == DEFAULT else true_ratio(cell.config)
