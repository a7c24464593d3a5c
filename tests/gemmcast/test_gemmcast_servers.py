"""A predictor as servers use it: shared by threads, forked after loading, pickled.

Each of them answers as the first process does, and sees new versions.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gemmcast import Gemm, KernelConfig, ModelFileError, Prediction, Predictor, modeldir
from gemmcast.device import Device

Edit = Callable[..., bytes]
Message = tuple[str, object]
GEMM = Gemm(m=1000, n=500, k=2000)
TILES = [
    KernelConfig(family="tiled", tile_m=m, tile_n=n, tile_k=16)
    for m in range(4, 64, 12)
    for n in range(4, 64, 12)
]
DEVICE = "GPU A"
REFRESH_S = 0.02
LIMIT_S = 60.0
pytestmark = [
    # Python 3.12 warns of any fork beside threads; a server that does it is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


@pytest.fixture
def directory(tmp_path: Path, power_model: bytes) -> Path:
    """A model directory with version 1."""
    modeldir.put_model(tmp_path / "node", power_model, "1")
    return tmp_path / "node"


@pytest.fixture
def second(power_model: bytes, edit: Edit) -> bytes:
    """A model of half the runtimes."""
    return edit(power_model, faster=0.7)


def _versions_until(predictor: Predictor, version: str) -> list[str]:
    """The versions of predictions, until one is of that version."""
    seen: list[str] = []
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        seen.append(predictor.predict(GEMM, TILES[0], DEVICE).model_version)
        if seen[-1] == version:
            break
    return seen


def _answers(predictor: Predictor) -> list[object]:
    """Through each of the three sessions: one query, a batch, and the prefilter."""
    one = predictor.predict(GEMM, TILES[0], DEVICE)
    batch = predictor.predict_batch([(GEMM, config) for config in TILES], DEVICE)
    best = predictor.pick(GEMM, TILES, device=DEVICE)
    return [one, batch, best]


def _serve(predictor: Predictor, pipe: Connection) -> None:
    """A worker: answer at once, then until version 2 is there."""
    pipe.send(_answers(predictor))
    if predictor.source.is_dir():
        pipe.send(_versions_until(predictor, "2"))
        pipe.send(_answers(predictor))


def _received(pipe: Connection) -> list[object]:
    assert pipe.poll(LIMIT_S), "the worker does not answer"
    values: list[object] = pipe.recv()
    return values


class _Worker:
    """A process forked from this one."""

    def __init__(self, predictor: Predictor) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(predictor, theirs), daemon=True)
        self._process.start()

    def stop(self) -> int | None:
        """Its exit status; by force where it hangs."""
        self._process.join(LIMIT_S)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def test_threads_see_a_new_version(directory: Path, second: bytes) -> None:
    with Predictor(directory, refresh_s=REFRESH_S) as predictor, ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(_versions_until, predictor, "2") for _ in range(4)]
        modeldir.put_model(directory, second, "2")
        for worker in workers:
            seen = worker.result()
            assert seen == sorted(seen) and seen[-1] == "2"


def test_a_forked_worker_answers_and_sees_a_new_version(directory: Path, second: bytes) -> None:
    with Predictor(directory, refresh_s=REFRESH_S) as predictor:
        expected = _answers(predictor)
        workers = [_Worker(predictor) for _ in range(2)]
        assert [_received(worker.pipe) for worker in workers] == [expected, expected]
        modeldir.put_model(directory, second, "2")
        for worker in workers:
            assert _received(worker.pipe)[-1] == "2"
        assert _versions_until(predictor, "2")[-1] == "2"
        expected = _answers(predictor)
        assert [_received(worker.pipe) for worker in workers] == [expected, expected]
        assert [worker.stop() for worker in workers] == [0, 0]


def test_a_fork_amid_predictions_of_other_threads_does_not_hang(power_file: Path) -> None:
    """Whatever those threads had locked stays locked in the child."""
    stop = threading.Event()
    with Predictor(power_file) as predictor:
        expected = _answers(predictor)

        def work() -> None:
            while not stop.is_set():
                _answers(predictor)

        with ThreadPoolExecutor(3) as pool:
            busy = [pool.submit(work) for _ in range(3)]
            workers = []
            try:
                for _ in range(4):
                    workers.append(_Worker(predictor))
                    time.sleep(0.01)
                answers = [_received(worker.pipe) for worker in workers]
            finally:
                stop.set()
                statuses = [worker.stop() for worker in workers]
            assert answers == [expected] * 4
            assert statuses == [0] * 4
            assert all(future.result() is None for future in busy)


def test_a_fork_of_a_closed_predictor_follows_no_more(directory: Path, second: bytes) -> None:
    predictor = Predictor(directory, refresh_s=REFRESH_S)
    predictor.close()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def look() -> None:
        modeldir.put_model(directory, second, "2")
        version = predictor.version
        theirs.send([version, threading.active_count()])

    process = context.Process(target=look, daemon=True)
    process.start()
    assert _received(ours) == ["1", 1]
    process.join(LIMIT_S)


def test_another_process_opens_a_pickled_predictor(directory: Path, second: bytes) -> None:
    context = multiprocessing.get_context("spawn")
    with Predictor(directory) as predictor, ProcessPoolExecutor(1, context) as pool:
        here = predictor.predict(GEMM, TILES[0], DEVICE)
        there = pool.submit(predictor.predict, GEMM, TILES[0], DEVICE)
        assert there.result(LIMIT_S) == here
        modeldir.put_model(directory, second, "2")
        newer: Prediction = pool.submit(predictor.predict, GEMM, TILES[0], DEVICE).result(LIMIT_S)
        assert newer.model_version == "2"
        assert newer.runtime_us < here.runtime_us


def test_a_pickled_predictor_follows_by_itself(directory: Path, second: bytes) -> None:
    with Predictor(directory, refresh_s=REFRESH_S) as predictor:
        pickled = pickle.dumps(predictor)
    with pickle.loads(pickled) as copy:
        modeldir.put_model(directory, second, "2")
        assert _versions_until(copy, "2")[-1] == "2"
    assert predictor.version == "1"


def test_a_pickled_predictor_does_not_depend_on_the_working_directory(
    power_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Device
) -> None:
    monkeypatch.chdir(power_file.parent)
    with Predictor(power_file.name) as predictor:
        pickled = pickle.dumps(predictor)
        expected = predictor.predict(GEMM, TILES[0], gpu)
    monkeypatch.chdir(tmp_path)
    with pickle.loads(pickled) as copy:
        assert copy.predict(GEMM, TILES[0], gpu) == expected


def test_a_pickled_predictor_without_its_file_is_refused_by_name(
    power_model: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(power_model)
    with Predictor(path) as predictor:
        pickled = pickle.dumps(predictor)
    path.unlink()
    with pytest.raises(ModelFileError, match=r"model\.onnx.*name an \.onnx file"):
        pickle.loads(pickled)
