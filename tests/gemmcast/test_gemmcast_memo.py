"""A query that comes again is answered from the memo, which belongs to one version of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gemmcast import Predictor, memo, modeldir
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.modelfile import LoadedModel

Edit = Callable[..., bytes]
GEMM = Gemm(m=512, n=256, k=128, dtype="fp16", layout="nt")
CONFIG = KernelConfig(family="cublaslt")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The rows that a model was run with."""
    rows: list[object] = []
    run_one = LoadedModel.run_one

    def counted(self: LoadedModel, row: object) -> object:
        rows.append(row)
        return run_one(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(LoadedModel, "run_one", counted)
    return rows


def test_a_repeated_query_runs_no_model(
    powered: Predictor, gpu: Device, runs: list[object]
) -> None:
    first = powered.predict(GEMM, CONFIG, gpu)
    again = powered.predict(replace(GEMM), replace(CONFIG), replace(gpu))
    assert again is first
    assert len(runs) == 1


def test_whatever_differs_is_another_query(
    powered: Predictor, gpu: Device, runs: list[object]
) -> None:
    answers = [
        powered.predict(GEMM, CONFIG, gpu),
        powered.predict(replace(GEMM, m=513), CONFIG, gpu),
        powered.predict(GEMM, replace(CONFIG, stages=3), gpu),
        powered.predict(GEMM, CONFIG, replace(gpu, dram_gbps=2 * gpu.dram_gbps)),
        powered.predict(GEMM, CONFIG, replace(gpu, peak_tflops={"fp16": 300.0})),
        powered.predict(GEMM, CONFIG, gpu, cache="warm"),
        powered.predict(GEMM, None, gpu),
    ]
    assert len(runs) == len(answers)
    assert len({id(answer) for answer in answers}) == len(answers)


def test_what_is_refused_is_refused_again(powered: Predictor, gpu: Device) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match="no measured peak"):
            powered.predict(replace(GEMM, dtype="int8"), CONFIG, gpu)


def test_it_is_bounded(
    powered: Predictor, gpu: Device, runs: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo, "KEPT", 3)
    sizes = [1, 2, 3, 4, 4, 1]
    answers = [powered.predict(replace(GEMM, m=m), CONFIG, gpu) for m in sizes]
    assert answers[3] is answers[4]
    # The fourth size began a new memo.
    assert answers[5] == answers[0]
    assert len(runs) == 5


def test_a_new_version_begins_with_none(
    power_model: bytes, edit: Edit, gpu: Device, tmp_path: Path
) -> None:
    modeldir.put_model(tmp_path, power_model, "1")
    with Predictor(tmp_path, refresh_s=3600) as predictor:
        before = predictor.predict(GEMM, CONFIG, gpu)
        modeldir.put_model(tmp_path, edit(power_model, faster=0.5), "2")
        # At once, in place of the thread's next look
        predictor._follower._take_newest()  # type: ignore[union-attr]
        after = predictor.predict(GEMM, CONFIG, gpu)
        assert (before.model_version, after.model_version) == ("1", "2")
        assert after.runtime_us < 0.7 * before.runtime_us
        assert predictor.predict(GEMM, CONFIG, gpu) is after


def test_equal_devices_have_one_hash(gpu: Device) -> None:
    assert hash(replace(gpu)) == hash(gpu)
    assert replace(gpu, peak_tflops={}) != gpu
