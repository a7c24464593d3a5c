"""Configurations that the model cannot tell apart are ties, or are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from gemmcast import Gemm, KernelConfig, Predictor
from gemmcast.config import FAMILIES
from gemmcast.device import Device
from gemmcast.errors import InputError

GEMM = Gemm(m=1000, n=500, k=2000)
NAMES = ("default", "heuristic-1", "enumerated-0")


def _named(name: str, family: str = "cublaslt", **knobs: int) -> KernelConfig:
    return KernelConfig(family=family, kernel=name, **knobs)


@pytest.mark.parametrize("top", [None, 1])
def test_names_of_cublaslt_without_knobs_are_not_ranked(
    powered: Predictor, gpu: Device, top: int | None
) -> None:
    with pytest.raises(InputError) as caught:
        powered.rank(GEMM, [_named(name) for name in NAMES], device=gpu, top=top)
    shown = ", ".join(str(_named(name)) for name in NAMES)
    assert str(caught.value) == (
        f"configs = '{shown}': the model reads knobs, not names, so it cannot tell these apart; "
        "give their knobs: on a node with the GPU, `python -m agent.kernels.cublaslt M N K NAME...`"
        " prints them"
    )


def test_a_name_of_cublaslts_list_has_no_prediction_of_its_own(
    powered: Predictor, gpu: Device
) -> None:
    """Alone, too: the answer would be about another kernel."""
    unknown = _named("heuristic-1")
    with pytest.raises(InputError) as caught:
        powered.predict(GEMM, unknown, gpu)
    assert str(caught.value) == (
        f"configs = '{unknown}': the model reads knobs, not names, and would answer for the "
        "library's default; give their knobs: on a node with the GPU, "
        "`python -m agent.kernels.cublaslt M N K NAME...` prints them"
    )
    with pytest.raises(InputError, match="heuristic-1"):
        powered.pick(GEMM, [unknown, KernelConfig(family="tiled", tile_m=16)], device=gpu)
    with pytest.raises(InputError, match="heuristic-1"):
        powered.predict_batch([(GEMM, _named("default")), (GEMM, unknown)], gpu)
    assert powered.predict(GEMM, _named("default"), gpu).runtime_us > 0
    assert powered.predict(GEMM, _named("heuristic-1", algo_id=66), gpu).runtime_us > 0


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"cublaslt", "blas"}))
def test_bare_names_that_are_one_query_are_refused_together(
    powered: Predictor, gpu: Device, family: str
) -> None:
    other = KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16)
    with pytest.raises(InputError) as caught:
        powered.rank(GEMM, [_named("a", family), other, _named("b", family)], device=gpu)
    assert str(caught.value) == (
        f"configs = '{_named('a', family)}, {_named('b', family)}': the model reads knobs, not "
        "names, so it cannot tell these apart; give their knobs"
    )


def test_a_bare_name_alone_is_ranked(powered: Predictor, gpu: Device) -> None:
    configs = [_named("a", "custom"), KernelConfig(family="tiled", tile_m=16)]
    ranking = powered.rank(GEMM, configs, device=gpu)
    assert {ranked.config for ranked in ranking} == set(configs)
    assert [ranked.tied for ranked in ranking] == [(), ()]


def test_resolved_names_with_equal_knobs_are_a_tie(powered: Predictor, gpu: Device) -> None:
    """The library may list one set of knobs twice (47 of 99,656 recorded rows of an H100)."""
    first, second = (_named(name, algo_id=66, tile_m=64, tile_n=64) for name in NAMES[:2])
    other = _named("enumerated-0", algo_id=66, tile_m=8, tile_n=8)
    for configs in ([first, other, second], [second, other, first]):
        ranking = powered.rank(GEMM, configs, device=gpu)
        tied = {ranked.config: ranked.tied for ranked in ranking}
        assert tied == {first: (second,), second: (first,), other: ()}
        costs = {ranked.config: ranked.prediction for ranked in ranking}
        assert costs[first] == costs[second] != costs[other]
    best = powered.pick(GEMM, [first, second], device=gpu)
    assert (best.config, best.tied) == (first, (second,))


def test_knobs_that_mean_the_same_are_a_tie(powered: Predictor, gpu: Device) -> None:
    """An open tile is the whole dimension, an open split_k is 1."""
    is_open = KernelConfig(family="cutlass", tile_m=64, tile_n=64)
    written = KernelConfig(family="cutlass", tile_m=64, tile_n=64, tile_k=GEMM.k, split_k=1)
    ranking = powered.rank(GEMM, [is_open, written], device=gpu)
    assert [ranked.tied for ranked in ranking] == [(written,), (is_open,)]


def test_the_prefilter_keeps_what_is_tied_with_the_best(powered: Predictor, gpu: Device) -> None:
    """`tied` names all of them, also those that were not scored."""
    same = [_named(f"heuristic-{i}", algo_id=66, tile_m=64, tile_n=64) for i in range(1, 30)]
    best = powered.pick(GEMM, same, device=gpu)
    assert best.config == same[0]
    assert best.tied == tuple(same[1:])


def test_one_configuration_named_twice_is_no_tie(powered: Predictor, gpu: Device) -> None:
    config = KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16)
    ranking = powered.rank(GEMM, [config, config], device=gpu)
    assert [ranked.tied for ranked in ranking] == [(), ()]


def test_a_schedule_in_a_name_is_read(powered: Predictor, gpu: Device) -> None:
    names = [f"wgmma_fp16_nt_64x128x64_2x1_{s}_z1_a8" for s in ("ws", "pingpong")]
    fp16 = Gemm(m=256, n=256, k=256, dtype="fp16", layout="nt")
    ranking = powered.rank(fp16, [_named(name, "cutlass") for name in names], device=gpu)
    assert [ranked.tied for ranked in ranking] == [(), ()]
    costs = [ranked.prediction.runtime_us for ranked in ranking]
    assert np.all(np.diff(costs) >= 0)
