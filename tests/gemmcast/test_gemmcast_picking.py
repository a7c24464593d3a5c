"""Picks: the default stays unless another configuration is surely better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemmcast import Gemm, KernelConfig, Predictor
from gemmcast.cli_ranking import gain_lines
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gain import FAR, Costs
from gemmcast.gemm_list import ListedGemm
from gemmcast.list_pick import pick_list
from gemmcast.modelfile import Answers, LoadedModel
from gemmcast.objective import Objective
from gemmcast.query import AT, Rows

GEMM = Gemm(m=1000, n=500, k=2000)
DEFAULT = KernelConfig(family="cublas")
TILES = [KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=16) for tile in (4, 8, 32)]
OUTPUTS = ("runtime_us", "tflops", "sustained_runtime_us", "power_w", "energy_mj")


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return Predictor()


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> dict[float, tuple[float, float, bool]]:
    """tile_m, 0 of cublas -> time of a configuration in us, factor of its interval, extrapolating.

    Power is 100 W for the default and 200 W for the others.
    """
    times: dict[float, tuple[float, float, bool]] = {}

    def run(_model: LoadedModel, rows: Rows) -> Answers:
        is_default = rows[:, AT["tile_m"]] == rows[:, AT["m"]]
        tiles = np.where(is_default, 0, rows[:, AT["tile_m"]]).tolist()
        us = np.array([times[tile][0] for tile in tiles], dtype=np.float32)
        factor = np.array([times[tile][1] for tile in tiles], dtype=np.float32)[:, np.newaxis]
        power_w = np.where(is_default, 100, 200).astype(np.float32)
        values = np.stack([us, 1 / us, us, power_w, us * power_w], axis=1)
        answers = {name: values[:, i] for i, name in enumerate(OUTPUTS)}
        extrapolating = np.array([times[tile][2] for tile in tiles])
        ends = {"low": values / factor, "high": values * factor}
        return {**answers, **ends, "extrapolating": extrapolating}

    monkeypatch.setattr(LoadedModel, "run", run)
    monkeypatch.setattr(LoadedModel, "estimate_us", lambda _model, _rows: None)
    return times


def test_a_surely_better_one_is_chosen_and_a_maybe_better_one_not(
    powered: Predictor, gpu: Device, answered: dict[float, tuple[float, float, bool]]
) -> None:
    answered |= {0: (10.0, 1.1, False), 4: (8.0, 1.1, False), 8: (7.0, 2.0, False)}
    answered[32] = (12.0, 1.1, False)
    choice = powered.pick(GEMM, [*TILES, DEFAULT], device=gpu)
    half = FAR * np.hypot(np.log(1.1), np.log(1.1))
    assert choice.config == TILES[0]
    assert choice.gain.ratio == pytest.approx(1.25)
    assert choice.gain.low == pytest.approx(1.25 * np.exp(-half))
    assert choice.gain.high == pytest.approx(1.25 * np.exp(half))
    assert choice.default is not None and choice.default.config == DEFAULT
    assert choice.default.prediction.runtime_us == 10.0
    assert choice.best == TILES[1] and choice.best_gain.low < 1 < choice.best_gain.ratio
    assert choice.possible == 4 and not choice.keeps_default

    bold = powered.pick(GEMM, [*TILES, DEFAULT], device=gpu, bold=True)
    assert bold.config == TILES[1] and bold.gain == choice.best_gain

    answered[4] = (9.7, 1.1, False)
    stays = powered.pick(GEMM, [*TILES, DEFAULT], device=gpu)
    assert stays.config == DEFAULT and stays.keeps_default
    assert (stays.gain.low, stays.gain.ratio, stays.gain.high) == (1, 1, 1)


def test_the_doubt_about_a_gain_grows_with_what_is_promised() -> None:
    """Two errors of 10 % each: what they share cancels, and the closer two costs are, the more."""
    costs = Costs(np.array([1.0, 0.99, 0.94, 0.5, 0.2]), np.full(5, np.log(1.1)))
    gains = costs.gains(0)
    left = gains.half_widths[1:] / np.hypot(np.log(1.1), np.log(1.1))
    assert left == pytest.approx([0.315, 0.393, 0.6, 0.6], abs=0.001)
    assert [gains.of(place).is_sure for place in range(5)] == [False, False, True, True, True]
    assert gains.are_sure.tolist() == [False, False, True, True, True]


def test_nothing_is_sure_that_is_extrapolating(
    powered: Predictor, gpu: Device, answered: dict[float, tuple[float, float, bool]]
) -> None:
    answered |= {0: (10.0, 1.1, False), 4: (1.0, 1.1, True), 8: (2.0, 1.1, False)}
    assert powered.pick(GEMM, [DEFAULT, *TILES[:2]], device=gpu).config == TILES[1]
    answered[0] = (10.0, 1.1, True)
    assert powered.pick(GEMM, [DEFAULT, *TILES[:2]], device=gpu).config == DEFAULT


def test_the_text_says_why_a_large_gain_was_refused(
    powered: Predictor, gpu: Device, answered: dict[float, tuple[float, float, bool]]
) -> None:
    answered |= {0: (10.0, 1.1, False), 4: (1.0, 1.1, True)}
    refused = powered.pick(GEMM, [DEFAULT, TILES[0]], device=gpu)
    assert "outside the training range (--bold takes it)" in "\n".join(gain_lines(refused, "time"))
    answered |= {0: (10.0, 1.1, True), 4: (1.0, 1.1, False)}
    kept = powered.pick(GEMM, [DEFAULT, TILES[0]], device=gpu)
    assert "the default outside the training range" in "\n".join(gain_lines(kept, "time"))
    answered |= {0: (10.0, 1.1, False), 4: (9.7, 1.1, False)}
    doubtful = powered.pick(GEMM, [DEFAULT, TILES[0]], device=gpu)
    text = "\n".join(gain_lines(doubtful, "time"))
    assert "not surely better" in text and "training range" not in text


def test_which_one_is_the_default(
    powered: Predictor, gpu: Device, answered: dict[float, tuple[float, float, bool]]
) -> None:
    answered |= {0: (10.0, 1.1, False), 4: (8.0, 1.1, False), 8: (7.9, 1.1, False)}
    answered[32] = (30.0, 1.1, False)
    without = powered.pick(GEMM, TILES, device=gpu)
    assert without.config == TILES[1] and without.default is None
    named = powered.pick(GEMM, TILES, device=gpu, default=TILES[0])
    assert named.config == TILES[0] and named.best == TILES[1]
    beside = powered.pick(GEMM, TILES[:2], device=gpu, default=TILES[2])
    assert beside.config == TILES[1] and beside.possible == 3


def test_under_watts_leaves_out_what_draws_more(
    powered: Predictor, gpu: Device, answered: dict[float, tuple[float, float, bool]]
) -> None:
    answered |= {0: (10.0, 1.1, False), 4: (5.0, 1.1, False)}
    configs = [DEFAULT, TILES[0]]
    assert powered.pick(GEMM, configs, "time-under-watts=150", gpu).config == DEFAULT
    assert powered.pick(GEMM, configs, "time-under-watts=200", gpu).config == TILES[0]
    kept = powered.rank(GEMM, configs, "time-under-watts=150", gpu)
    assert [ranked.config for ranked in kept] == [DEFAULT]
    with pytest.raises(InputError, match="every configuration draws more, the least 100 W"):
        powered.pick(GEMM, configs, "time-under-watts=50", gpu)
    allowed = powered.pick(GEMM, configs, "time-under-watts=150", gpu, default=TILES[0])
    assert allowed.config == DEFAULT, "the default draws too much, however fast it is"


@pytest.mark.parametrize("text", ["time", "energy", "edp", "time-under-watts=400.5"])
def test_an_objective_is_its_text(text: str) -> None:
    assert str(Objective.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed", "use one of time, energy, edp, time-under-watts=W"),
        ("time-under-watts", "unknown objective"),
        ("time-under-watts=", "write time-under-watts=400"),
        ("time-under-watts=-3", "watts must be a number above 0"),
        ("time-under-watts=nan", "watts must be a number above 0"),
        ("time-under-watts=inf", "watts must be a number above 0"),
    ],
)
def test_objectives_that_there_are_not(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective.parse(text)


def test_half_widths_of_a_product_are_added() -> None:
    high = np.array([[1.2, 1.0, 1.0, 1.0, 1.5]]) * np.array([[10.0, 1, 20.0, 1, 30.0]])
    answers = {"sustained_runtime_us": np.array([20.0]), "energy_mj": np.array([30.0])}
    high[0, 2] = 20.0 * 1.3
    costs = Costs.of({**answers, "high": high}, OUTPUTS, Objective.parse("edp"))
    assert costs.values == pytest.approx([600.0])
    assert costs.half_widths == pytest.approx([np.log(1.5) + np.log(1.3)])


def test_candidates_are_made_where_none_are_named(shipped: Predictor) -> None:
    gemm = Gemm(m=16, n=4096, k=4096, dtype="bf16", layout="nt")
    choice = shipped.pick(gemm, device="h100", families=["cutlass"])
    assert choice.default is not None
    assert choice.default.config.kernel.startswith("wgmma_bf16_nt_128x128")
    assert choice.possible == 193
    assert choice.keeps_default or choice.gain.is_sure
    first = shipped.rank(gemm, device="h100", families=["cutlass"], top=3)
    assert len(first) == 3 and first[0].config.family == "cutlass"
    everything = shipped.pick(gemm, device="h100")
    assert everything.default is not None and everything.default.config == DEFAULT


def test_names_are_unfolded_or_refused(shipped: Predictor) -> None:
    gemm = Gemm(m=16, n=4096, k=4096, dtype="bf16", layout="nt")
    shipped_knobs = KernelConfig.parse(
        "triton:kernel=matmul,tile_m=64,tile_n=128,tile_k=128,group_m=32,warps=4,stages=2"
    )
    named = KernelConfig(family="triton", kernel="matmul")
    (first, _) = shipped.rank(gemm, [named, shipped_knobs], device="h100")
    assert first.tied == (shipped_knobs,)
    for text in ("cutlass:kernel=foo", "triton:kernel=mine.toml"):
        with pytest.raises(InputError, match="these names say none"):
            shipped.pick(gemm, [DEFAULT, KernelConfig.parse(text)], device="h100")
    with pytest.raises(InputError, match="give one of the two"):
        shipped.pick(gemm, [DEFAULT], device="h100", families=["cutlass"])


def test_a_table_is_kept_for_what_has_the_same_limits_only(shipped: Predictor) -> None:
    config = KernelConfig.parse("cutlass:kernel=wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a8")
    configs = [DEFAULT, config]
    gemm = Gemm(m=16, n=4096, k=4096, dtype="bf16", layout="nt")
    for _ in range(2):
        assert len(shipped.rank(gemm, configs, device="h100")) == 2
        for impossible in (replace(gemm, k=4095), replace(gemm, n=4095)):
            with pytest.raises(InputError, match="no multiple of 8"):
                shipped.rank(impossible, configs, device="h100")
    h100 = shipped.device("h100")
    with pytest.raises(InputError, match="does not have"):
        shipped.rank(gemm, configs, device=replace(h100, arch="sm_80"))


def test_a_list_says_what_all_choices_save(shipped: Predictor) -> None:
    half = Gemm(m=16, n=4096, k=4096, dtype="bf16", layout="nt")
    wide = replace(half, m=2048, n=28672)
    odd = replace(half, n=4097, k=4095)
    gemms = [ListedGemm(gemm=half, weight=32.0), ListedGemm(gemm=odd), ListedGemm(gemm=wide)]
    picked = pick_list(shipped, gemms, device="h100", families=["cutlass"])
    first, refused, last = picked.choices
    assert first.choice is not None and last.choice is not None
    assert refused.choice is None and "rows of A have 4095 elements" in refused.reason
    assert picked.time_us is not None and picked.energy_mj is not None
    assert first.choice.default is not None and last.choice.default is not None
    before = 32 * first.choice.default.prediction.runtime_us
    before += last.choice.default.prediction.runtime_us
    after = 32 * first.choice.prediction.runtime_us + last.choice.prediction.runtime_us
    assert picked.time_us.default == pytest.approx(before)
    assert picked.time_us.choice == pytest.approx(after)
    assert picked.time_us.share == pytest.approx(1 - after / before)


def test_a_list_of_kernels_and_of_named_configurations(shipped: Predictor) -> None:
    gemm = Gemm(m=16, n=4096, k=4096, dtype="fp8_e4m3", layout="nt")
    scaled = ListedGemm(gemm=gemm, kernel="scaled_block")
    (of_triton,) = pick_list(shipped, [scaled], device="h100").choices
    assert of_triton.choice is not None and of_triton.choice.config.kernel == "scaled_block"
    half = Gemm(m=16, n=4096, k=4092, dtype="bf16", layout="nt")
    aligned = KernelConfig.parse("cutlass:kernel=wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a8")
    (named,) = pick_list(
        shipped, [ListedGemm(gemm=half)], [DEFAULT, aligned], device="h100"
    ).choices
    assert named.choice is not None and named.choice.possible == 1
    with pytest.raises(InputError, match="for any of them; for the first: .*no multiple of 8"):
        pick_list(shipped, [ListedGemm(gemm=half)], [aligned], device="h100")
    with pytest.raises(InputError, match="unknown kernel family"):
        pick_list(shipped, [scaled], device="h100", families=["mkl"])
