"""What the CUDA backend puts on a fake GPU's queue: evictions, stamps, and who else is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import fake_gpu
import pytest

from agent.instrument import LiveInstrument
from agent.timing import Burst
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

CONFIG = KernelConfig(family="cublas")
ROUND = Gemm(m=128, n=128, k=128)
"""16 sets are 3 MiB; a batch of 64 launches gets round all of them."""
NOT_ROUND = Gemm(m=48, n=48, k=64)
"""94 sets, which a batch of 64 launches does not get round."""
TINY = Gemm(m=16, n=16, k=16)
"""All 512 sets are 1.5 MiB: less than 3x L2."""
SMALLEST = Gemm(m=4, n=4, k=4)
"""All 8192 sets of a cell with power are 1.5 MiB."""
LARGE = Gemm(m=512, n=512, k=512)
"""One set is 3 MiB."""
LONG = Gemm(m=300, n=300, k=300)
"""Three sets are 3.1 MiB; a batch of four launches ends in the middle of a turn."""
SLOW_MHZ = fake_gpu.MHZ / 2


@pytest.fixture
def backend(gpu: fake_gpu.Gpu) -> Any:
    from agent.devices.cuda import CudaBackend

    return CudaBackend(gpu.clock)


def _prepared(backend: Any, gemm: Gemm, *, cold: bool, metered: bool = False) -> tuple[Any, Any]:
    """A kernel and its operand sets."""
    from agent.kernels import load

    sets = backend.operands(gemm, cold=cold, metered=metered)
    return load("cublas").prepare(gemm, CONFIG, sets), sets


def _before_graphs(gpu: fake_gpu.Gpu, backend: Any, gemm: Gemm, *, cold: bool) -> list[str]:
    """What runs right before each graph of a burst, apart from its stamp."""
    from agent.timing import finish

    prepared, sets = _prepared(backend, gemm, cold=cold)
    gpu.enqueued.clear()
    finish(backend.burst(prepared, sets, Procedure(), cold=cold))
    names = [name for name in gpu.enqueued if name != "stamp"]
    places = [place for place, name in enumerate(names) if name == "graph"]
    assert len(places) > 5
    return [names[place - 1] for place in places]


@pytest.mark.parametrize(("gemm", "evicts"), [(ROUND, False), (NOT_ROUND, True), (TINY, True)])
def test_l2_is_evicted_before_each_batch_that_does_not_do_so_itself(
    gpu: fake_gpu.Gpu, backend: Any, gemm: Gemm, evicts: bool
) -> None:
    before = _before_graphs(gpu, backend, gemm, cold=True)
    assert [name == "touch" for name in before] == [evicts] * len(before)


def test_l2_is_evicted_where_all_sets_together_fit_in_it(
    gpu: fake_gpu.Gpu, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch gets round all 512 sets, but they are smaller than the cache."""
    monkeypatch.setattr(fake_gpu, "GEMM_US", 0.5)
    before = _before_graphs(gpu, backend, TINY, cold=True)
    assert before == ["touch"] * len(before)


SHAPES = [ROUND, NOT_ROUND, TINY, SMALLEST, LARGE, LONG, Gemm(m=72, n=80, k=48, batch=2)]


@pytest.mark.parametrize("launch_us", [0.5, 20.0, 3000.0])
@pytest.mark.parametrize("gemm", SHAPES, ids=str)
def test_no_timed_launch_of_a_cold_burst_finds_its_operands_in_l2(
    gpu: fake_gpu.Gpu,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    gemm: Gemm,
    launch_us: float,
) -> None:
    from agent.timing import finish

    monkeypatch.setattr(fake_gpu, "GEMM_US", launch_us)
    prepared, sets = _prepared(backend, gemm, cold=True)
    burst, _ = finish(backend.burst(prepared, sets, Procedure(), cold=True))
    assert gpu.graphs == {"hits": 0, "misses": burst.launches_timed}


@pytest.mark.parametrize("launch_us", [20.0, 3000.0])
@pytest.mark.parametrize("gemm", SHAPES, ids=str)
def test_no_launch_of_a_cold_power_window_finds_its_operands_in_l2(
    gpu: fake_gpu.Gpu,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    gemm: Gemm,
    launch_us: float,
) -> None:
    monkeypatch.setattr(fake_gpu, "GEMM_US", launch_us)
    reading = _metered(gpu, backend, gemm, cold=True)
    assert gpu.graphs["hits"] == 0
    assert gpu.graphs["misses"] > 0
    # The time of an eviction is not the kernel's.
    assert reading.sustained_runtime_us == pytest.approx(launch_us)


def test_evictions_take_a_small_part_of_a_power_window(gpu: fake_gpu.Gpu, backend: Any) -> None:
    _metered(gpu, backend, SMALLEST, cold=True)
    evictions = gpu.enqueued.count("touch")
    assert evictions > 0
    assert evictions * fake_gpu.TOUCH_US < 0.01 * gpu.graphs["misses"] * fake_gpu.GEMM_US


@pytest.mark.parametrize("gemm", [ROUND, TINY], ids=str)
def test_every_launch_of_a_warm_power_window_finds_its_operands_in_l2(
    gpu: fake_gpu.Gpu, backend: Any, gemm: Gemm
) -> None:
    _metered(gpu, backend, gemm, cold=False)
    assert gpu.graphs["misses"] == 0
    assert gpu.graphs["hits"] > 0


def _metered(gpu: fake_gpu.Gpu, backend: Any, gemm: Gemm, *, cold: bool) -> Any:
    """A power window of a kernel that ran once before."""
    # Heating is another kernel's.
    backend._is_warm = True
    prepared, sets = _prepared(backend, gemm, cold=cold, metered=True)
    prepared.launch(0)
    gpu.enqueued.clear()
    gpu.graphs.update(hits=0, misses=0)
    burst = Burst(runtime_us=fake_gpu.GEMM_US, runtime_rse=0.0, launches_timed=1)
    return backend.power(
        prepared, sets, burst, Procedure(), cold=cold, step_s=None, meanwhile=lambda: None
    )


@pytest.mark.parametrize("gemm", [ROUND, NOT_ROUND, TINY])
def test_a_warm_batch_begins_with_a_launch_that_is_not_timed(
    gpu: fake_gpu.Gpu, backend: Any, gemm: Gemm
) -> None:
    before = _before_graphs(gpu, backend, gemm, cold=False)
    assert before == ["gemm"] * len(before)


@pytest.fixture
def graph(backend: Any) -> Any:
    """64 launches: 1.28 ms."""
    prepared, sets = _prepared(backend, ROUND, cold=True)
    return backend.stream.capture(prepared, len(sets), 64)


def test_each_batch_has_the_clock_of_its_own_time(
    gpu: fake_gpu.Gpu, backend: Any, graph: Any
) -> None:
    """The clock halves amid the fourth of six batches that are enqueued at once."""
    from agent.devices.cuda_graphs import GraphBatches

    batch_us = 64 * fake_gpu.GEMM_US
    gpu.slow_from_us = max(gpu.queue_end_us, gpu.host_us) + fake_gpu.SPIN_US + 3.5 * batch_us
    batches = GraphBatches(backend.stream, graph, 6, None)
    batches.wait()
    clocks = [batch.clock_mhz for batch in batches.read()]
    assert clocks[:3] == pytest.approx([fake_gpu.MHZ] * 3)
    assert clocks[4:] == pytest.approx([SLOW_MHZ] * 2)
    assert SLOW_MHZ * 1.1 < clocks[3] < fake_gpu.MHZ / 1.1


def _fed(gpu: fake_gpu.Gpu, load: Any, until_us: float) -> None:
    from agent.power_window import feed_until

    feed_until(load, until_us * 1e-6, gpu.clock)


def test_the_clock_of_a_load_is_that_since_its_mark(
    gpu: fake_gpu.Gpu, backend: Any, graph: Any
) -> None:
    """The clock halved while the load settled."""
    from agent.devices.cuda_graphs import GraphLoad

    begin_us = gpu.host_us
    gpu.slow_from_us = begin_us + 50_000.0
    load = GraphLoad(backend.stream, [graph], 64)
    _fed(gpu, load, begin_us + 70_000.0)
    load.mark()
    _fed(gpu, load, begin_us + 170_000.0)
    assert load.clock_mhz() == pytest.approx(SLOW_MHZ)
    assert load.launch_us() == pytest.approx(fake_gpu.GEMM_US, rel=0.01)
    load.stop()


def test_the_clock_of_a_load_ends_with_what_has_run(
    gpu: fake_gpu.Gpu, backend: Any, graph: Any
) -> None:
    """The clock halves for the graphs that are still queued."""
    from agent.devices.cuda_graphs import GraphLoad

    begin_us = gpu.host_us
    gpu.slow_from_us = begin_us + 100_000.0
    load = GraphLoad(backend.stream, [graph], 64)
    load.feed()
    load.mark()
    _fed(gpu, load, begin_us + 99_000.0)
    assert gpu.queue_end_us > gpu.slow_from_us
    assert load.clock_mhz() == pytest.approx(fake_gpu.MHZ)
    load.stop()


def test_a_counter_that_falls_while_the_board_is_described_is_counted_anew(
    gpu: fake_gpu.Gpu, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_mj = gpu.energy_mj
    reset_s = gpu.now_s() + 1.5

    def shown_mj() -> int:
        lost_mj = 400_000 if gpu.now_s() > reset_s else 0
        return true_mj() - lost_mj

    monkeypatch.setattr(gpu, "energy_mj", shown_mj)
    device = backend.characterise()
    assert gpu.now_s() > reset_s
    assert device.idle_power_w == pytest.approx(fake_gpu.WATTS, rel=0.02)
    assert device.counter_step_s == pytest.approx(fake_gpu.STEP_S, rel=0.02)


def test_a_counter_that_falls_all_the_time_is_no_meter(
    gpu: fake_gpu.Gpu, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_mj = gpu.energy_mj
    monkeypatch.setattr(gpu, "energy_mj", lambda: -true_mj())
    device = backend.characterise()
    assert (device.idle_power_w, device.counter_step_s) == (None, None)


OURS, DYING, NEIGHBOUR = 4711, 5, 6


def _list_processes(*lists: Sequence[int]) -> None:
    """NVML lists these processes, one list a call; the last of them stays."""
    left = [[SimpleNamespace(pid=pid) for pid in pids] for pids in lists]

    def listed(_handle: object) -> list[SimpleNamespace]:
        return left.pop(0) if len(left) > 1 else left[0]

    sys.modules["pynvml"].nvmlDeviceGetComputeRunningProcesses = listed


def test_a_neighbour_that_comes_later_is_seen_until_it_leaves(
    gpu: fake_gpu.Gpu, backend: Any
) -> None:
    assert backend.contention() is None
    _list_processes([OURS, NEIGHBOUR, NEIGHBOUR + 1])
    assert backend.contention() == "2 other process(es) hold this GPU"
    _list_processes([OURS])
    assert backend.contention() is None


def test_a_neighbour_that_was_there_first_is_seen_until_it_leaves(gpu: fake_gpu.Gpu) -> None:
    """The context of the child before, say, which died a moment ago."""
    from agent.devices.cuda import CudaBackend

    _list_processes([DYING], [DYING, OURS])
    backend = CudaBackend(gpu.clock)
    assert backend.contention() == "1 other process(es) hold this GPU"
    _list_processes([OURS])
    assert backend.contention() is None


@pytest.mark.parametrize("looks", [1, 3, 7])
def test_a_neighbour_of_a_moment_is_seen_at_each_step_of_the_counter_and_at_the_end(
    gpu: fake_gpu.Gpu, backend: Any, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell is measured again: of its first try nothing is kept."""
    live = LiveInstrument(backend, backend.characterise(), Procedure(), "me", wait=lambda _: None)
    metered = backend.power
    tries: list[str] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        tries.append("power")
        return metered(*arguments, **options)

    monkeypatch.setattr(backend, "power", counted)
    # One look before the cell begins, six while power is metered, one at the end.
    alone = [OURS]
    _list_processes(*[alone] * looks, [OURS, NEIGHBOUR], alone)
    cell = Cell(gemm=ROUND, config=CONFIG, device_key="Fake GPU", power=True)
    row = live.measure(cell).row
    assert (row["status"], len(tries)) == ("ok", 2)
