"""A predictor of a directory follows good pushes and keeps its model on bad ones."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmcast import Gemm, KernelConfig, Predictor, following, modeldir
from gemmcast.device import Device
from gemmcast.following import load_current
from gemmcast.modelfile import LoadedModel

Edit = Callable[..., bytes]
REFRESH_S = 0.02


def wait(condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
    end_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.005)
    return condition()


def runtime_us(predictor: Predictor, device: Device) -> float:
    return predictor.predict(
        Gemm(m=100, n=100, k=100), KernelConfig(family="cublas"), device
    ).runtime_us


def test_it_follows_a_push(tmp_path: Path, power_model: bytes, edit: Edit, gpu: Device) -> None:
    modeldir.put_model(tmp_path, power_model, "1")
    with Predictor(tmp_path, refresh_s=REFRESH_S) as predictor:
        slow_us = runtime_us(predictor, gpu)
        modeldir.put_model(tmp_path, edit(power_model, faster=1.0), "2")
        assert wait(lambda: predictor.version == "2")
        assert runtime_us(predictor, gpu) == pytest.approx(slow_us / 2.718281828, rel=1e-5)


class Looks:
    """The event that ends a follower's thread, set after so many pauses, none of which lasts."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.pauses_s: list[float] = []

    def wait(self, pause_s: float) -> bool:
        self.pauses_s.append(pause_s)
        return len(self.pauses_s) > self._count


def test_a_push_is_followed_at_the_next_look_of_five_a_second(
    tmp_path: Path, power_model: bytes, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.ModelFollower, "_start", lambda _: None)
    modeldir.put_model(tmp_path, power_model, "1")
    with Predictor(tmp_path) as predictor:
        follower = predictor._follower
        assert follower is not None
        for version in ("2", "3"):
            looks = Looks(1)
            modeldir.put_model(tmp_path, edit(power_model, faster=float(version)), version)
            with monkeypatch.context() as patched:
                patched.setattr(follower, "_stop", looks)
                follower._watch()
            assert predictor.version == version
            assert looks.pauses_s[0] <= 0.2


def test_it_follows_other_bytes_under_the_same_version(
    tmp_path: Path, power_model: bytes, edit: Edit, gpu: Device
) -> None:
    """A registry that was deleted counts from 1 again."""
    modeldir.put_model(tmp_path, power_model, "1")
    with Predictor(tmp_path, refresh_s=REFRESH_S) as predictor:
        slow_us = runtime_us(predictor, gpu)
        modeldir.put_model(tmp_path, edit(power_model, faster=1.0), "1")
        assert wait(lambda: runtime_us(predictor, gpu) < slow_us)


def test_it_sees_a_push_made_while_it_was_starting(
    tmp_path: Path, power_model: bytes, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(
        directory: Path, current: modeldir.CurrentModel
    ) -> tuple[LoadedModel, modeldir.CurrentModel]:
        loaded = load_current(directory, current)
        if current.version == "1":
            modeldir.put_model(directory, edit(power_model, faster=1.0), "2")
        return loaded

    monkeypatch.setattr(following, "load_current", interrupted)
    modeldir.put_model(tmp_path, power_model, "1")
    with Predictor(tmp_path, refresh_s=REFRESH_S) as predictor:
        assert wait(lambda: predictor.version == "2")


def test_it_takes_the_newer_model_when_the_one_it_wanted_was_displaced(
    tmp_path: Path, power_model: bytes, edit: Edit
) -> None:
    old = modeldir.put_model(tmp_path, power_model, "1")
    newer = modeldir.put_model(tmp_path, edit(power_model, faster=1.0), "2")
    (tmp_path / old.file).unlink()
    model, current = load_current(tmp_path, old)
    assert (model.version, current) == ("2", newer)


BAD_PUSHES: dict[str, Callable[[Path, bytes], object]] = {
    "half a model": lambda directory, model: modeldir.put_model(
        directory, model[: len(model) // 2], "2"
    ),
    "no ONNX at all": lambda directory, model: modeldir.put_model(directory, b"not a model", "2"),
    "bytes of another sum": lambda directory, model: (
        directory / modeldir.put_model(directory, model + b" ", "2").file
    ).write_bytes(model),
    "a model that is missing": lambda directory, model: _point_at(directory, "model-nowhere.onnx"),
    "no JSON": lambda directory, model: modeldir.write_atomically(
        directory / modeldir.CURRENT, b"{"
    ),
    "no current at all": lambda directory, model: (directory / modeldir.CURRENT).unlink(),
    "a device of other bytes": lambda directory, model: [
        (directory / "device-x.json").write_bytes(b"\xff"),
        modeldir.put_model(directory, model, "2"),
    ],
    "a damaged device": lambda directory, model: [
        (directory / "device-x.json").write_text("{"),
        modeldir.put_model(directory, model, "2"),
    ],
}


def _point_at(directory: Path, file: str) -> None:
    modeldir.write_atomically(
        directory / modeldir.CURRENT,
        json.dumps({"file": file, "sha256": "0", "version": "2"}).encode(),
    )


@pytest.mark.parametrize("name", BAD_PUSHES)
def test_it_keeps_the_model_in_hand_and_follows_the_next_good_push(
    tmp_path: Path,
    power_model: bytes,
    edit: Edit,
    gpu: Device,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    modeldir.put_model(tmp_path, power_model, "1")
    with (
        Predictor(tmp_path, refresh_s=REFRESH_S) as predictor,
        caplog.at_level(logging.WARNING, logger="gemmcast.following"),
    ):
        before_us = runtime_us(predictor, gpu)
        BAD_PUSHES[name](tmp_path, power_model)
        assert wait(lambda: "keeping model 1" in caplog.text)
        assert (predictor.version, runtime_us(predictor, gpu)) == ("1", before_us)
        (tmp_path / "device-x.json").unlink(missing_ok=True)
        modeldir.put_model(tmp_path, edit(power_model, faster=1.0), "3")
        assert wait(lambda: predictor.version == "3")
        assert runtime_us(predictor, gpu) < before_us


def test_it_tries_again_after_an_error_that_may_pass(
    tmp_path: Path, power_model: bytes, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    modeldir.put_model(tmp_path, power_model, "1")
    read, failures = (
        modeldir.read_model,
        [OSError(24, "Too many open files"), OSError(116, "Stale file handle")],
    )

    def flaky(directory: Path, current: modeldir.CurrentModel) -> bytes:
        if failures:
            raise failures.pop()
        return read(directory, current)

    with Predictor(tmp_path, refresh_s=REFRESH_S) as predictor:
        monkeypatch.setattr(modeldir, "read_model", flaky)
        modeldir.put_model(tmp_path, edit(power_model, faster=1.0), "2")
        assert wait(lambda: predictor.version == "2")
    assert not failures
