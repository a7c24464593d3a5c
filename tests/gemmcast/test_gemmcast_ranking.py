"""Rankings of the embedded predictor: the order, the prefilter, and what cannot be ranked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from gemmcast import Gemm, KernelConfig, Prediction, Predictor, query
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.modelfile import Answers, LoadedModel
from gemmcast.objective import MINIMISED
from gemmcast.ranking import PICKED_FROM, PREFILTERED

Alike = Callable[[Prediction, Prediction], bool]
GEMM = Gemm(m=1000, n=500, k=2000)
TILES = [
    KernelConfig(family="tiled", tile_m=m, tile_n=n, tile_k=16)
    for m in (4, 8, 16, 32, 64, 128)
    for n in (4, 16, 64)
]


@pytest.mark.parametrize("objective", MINIMISED)
def test_a_ranking_has_the_cheapest_first(
    powered: Predictor, gpu: Device, alike: Alike, objective: str
) -> None:
    def cost(prediction: Prediction) -> float:
        costs = {
            "time": prediction.runtime_us,
            "energy": prediction.energy_mj,
            "edp": prediction.edp_mj_us,
        }
        cost = costs[objective]
        assert cost is not None
        return cost

    ranking = powered.rank(GEMM, TILES, objective, gpu)
    costs = [cost(choice.prediction) for choice in ranking]
    assert all(a <= b * (1 + 1e-5) for a, b in pairwise(costs)), (
        "rounding, and edp is a float32 product in the ranking"
    )
    assert len({choice.config for choice in ranking}) == len(TILES)
    assert all(
        alike(choice.prediction, powered.predict(GEMM, choice.config, gpu)) for choice in ranking
    )
    for first in (
        powered.rank(GEMM, TILES, objective, gpu, top=3),
        [powered.pick(GEMM, TILES, objective, gpu)],
    ):
        assert all(
            one.config == other.config and alike(one.prediction, other.prediction)
            for one, other in zip(first, ranking, strict=False)
        )
    assert powered.pick(GEMM, TILES[:1], objective, gpu).config == TILES[0]


def test_of_many_configurations_the_model_ranks_those_that_the_prefilter_puts_first(
    powered: Predictor, gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [
        KernelConfig(family="tiled", tile_m=m, tile_n=n, tile_k=16)
        for m in range(4, 100, 8)
        for n in range(4, 100, 8)
    ]
    ranking = powered.rank(GEMM, many, device=gpu)
    rows = np.array([query.encode(GEMM, config, gpu) for config in many], dtype=np.float32)
    estimates_us = powered._model.estimate_us(rows)
    assert estimates_us is not None
    first = {many[i] for i in np.argsort(estimates_us)[: PICKED_FROM * PREFILTERED]}
    counts: list[int] = []
    run = LoadedModel.run

    def counted(model: LoadedModel, rows: query.Rows) -> Answers:
        counts.append(len(rows))
        return run(model, rows)

    monkeypatch.setattr(LoadedModel, "run", counted)
    assert powered.pick(GEMM, many, device=gpu).config == next(
        choice.config for choice in ranking if choice.config in first
    )
    assert counts == [PICKED_FROM * PREFILTERED]
    # More are wanted of more. By energy, or of a few, all are ranked.
    assert len(powered.rank(GEMM, many, device=gpu, top=9)) == 9 and counts[1:] == [9 * PREFILTERED]
    # The first is that of a pick, however few are wanted.
    counts.clear()
    powered.rank(GEMM, many, device=gpu, top=1)
    assert counts == [PICKED_FROM * PREFILTERED]
    for objective, configs in (("energy", many), ("time", many[:PREFILTERED])):
        counts.clear()
        powered.pick(GEMM, configs, objective, gpu)
        assert counts == [len(configs)]


def test_what_can_not_be_chosen_by(timed: Predictor, powered: Predictor, gpu: Device) -> None:
    for objective, missing in (("energy", "energy_mj"), ("edp", "energy_mj")):
        with pytest.raises(InputError) as caught:
            timed.pick(GEMM, TILES, objective)
        assert (
            str(caught.value) == f"objective = '{objective}': this model was trained without power "
            f'(it has no {missing}); use "time"'
        )
    with pytest.raises(
        InputError, match="objective = 'watts': unknown objective; use one of time, energy, edp"
    ):
        powered.rank(GEMM, TILES, "watts", gpu)
    with pytest.raises(
        InputError, match="there is no configuration to rank; name at least one configuration"
    ):
        powered.pick(GEMM, [], device=gpu)
    for top in (0, -1):
        with pytest.raises(InputError, match=f"top = {top}: must be 1 or more"):
            powered.rank(GEMM, TILES, device=gpu, top=top)
