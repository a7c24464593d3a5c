"""Several cells under way at once: the order of things, no lost row, whose fault a failure is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from agent.instrument import LiveInstrument
from agent.measurement import CONTENTION_WAITS_S
from agent.messages import Event, Fault, Outcome
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure

MakeCell = Callable[..., Cell]
Trouble = Callable[[str, int], object]
FIVE = (8, 16, 24, 32, 40)


@dataclass
class Run:
    """What a call returned, and all that happened in order, as (stage, m of the cell).

    "begun" and "done" are the caller's view.
    """

    events: list[Event]
    log: list[tuple[str, int]]
    waited: list[float]

    @property
    def done(self) -> list[int]:
        return [m for stage, m in self.log if stage == "done"]

    @property
    def statuses(self) -> dict[int, str]:
        return {
            event.row["m"]: event.row["status"]
            for event in self.events
            if isinstance(event, Outcome)
        }

    def at(self, stage: str, m: int) -> int:
        return self.log.index((stage, m))

    def under_way(self, stages: Sequence[str] = ("begun",)) -> int:
        """The most cells that were under way at any time."""
        most, now = 0, set[int]()
        for stage, m in self.log:
            if stage in stages:
                now.add(m)
            elif stage == "done":
                now.discard(m)
            most = max(most, len(now))
        return most


@pytest.fixture
def run(device: Device, make_cell: MakeCell, make_backend: Any) -> Callable[..., Run]:
    """Measures cells of these m on a fake backend of depth 3."""

    def go(
        sizes: Sequence[int] = FIVE,
        *,
        depth: int | None = None,
        device_depth: int = 3,
        power: Sequence[int] = (),
        options: Any = None,
        **backend: Any,
    ) -> Run:
        waited: list[float] = []
        fake = make_backend(device, depth=device_depth, **backend)
        live = LiveInstrument(fake, device, Procedure(), "me", wait=waited.append)
        cells = [make_cell(m=m, power=m in power, **(options or {}).get(m, {})) for m in sizes]
        events = []

        def begun(cell: Cell) -> None:
            fake.log.append(("begun", cell.gemm.m))

        for event in live.measure_all(cells, depth=depth, begun=begun):
            events.append(event)
            if isinstance(event, Outcome):
                fake.log.append(("done", event.row["m"]))
            else:
                fake.log.append(("fault", 0))
        return Run(events, fake.log, waited)

    return go


def _raise(error: Exception, stage: str, m: int) -> Trouble:
    def trouble(at_stage: str, at_m: int) -> None:
        if (at_stage, at_m) == (stage, m):
            raise error

    return trouble


def test_cells_begin_before_earlier_ones_are_done(run: Callable[..., Run]) -> None:
    seen = run()
    assert [entry for entry in seen.log if entry[0] == "begun"] == [("begun", m) for m in FIVE]
    assert all(seen.at("begun", after) < seen.at("timed", m) for m, after in pairwise(FIVE))
    assert seen.at("begun", 32) > seen.at("done", 8)
    assert seen.under_way() == 3
    assert seen.done == list(FIVE)
    assert set(seen.statuses.values()) == {"ok"}


def test_work_is_done_in_the_order_in_which_it_was_enqueued(run: Callable[..., Run]) -> None:
    seen = run((8, 16, 24))
    assert [stage for stage, m in seen.log if m == 8] == [
        "begun",
        "operands",
        "checked",
        "burst",
        "timed",
        "done",
    ]
    for waited_for in ("checked", "timed"):
        assert [m for stage, m in seen.log if stage == waited_for] == [8, 16, 24]
    # The device never waits for the host.
    assert seen.at("burst", 24) < seen.at("timed", 16)


def test_cells_under_way_are_at_different_stages(run: Callable[..., Run]) -> None:
    """If all began at once, the device would wait while all of them are prepared."""
    seen = run(tuple(range(8, 168, 8)), device_depth=8)
    begun = [i for i, (stage, _) in enumerate(seen.log) if stage == "begun"]
    assert all(
        "checked" in stages or "timed" in stages
        for stages in ([s for s, _ in seen.log[a:b]] for a, b in pairwise(begun))
    )


def test_a_cell_is_announced_before_anything_is_done_for_it(run: Callable[..., Run]) -> None:
    seen = run(power=FIVE)
    for m in FIVE:
        assert seen.at("begun", m) == min(i for i, (_, of) in enumerate(seen.log) if of == m)
    assert Counter(stage for stage, _ in seen.log)["begun"] == 5


@pytest.mark.parametrize(("device_depth", "depth"), [(1, None), (1, 4), (3, 1)])
@pytest.mark.parametrize("power", [(), FIVE])
def test_alone_is_one_after_the_other(
    run: Callable[..., Run], device_depth: int, depth: int | None, power: Sequence[int]
) -> None:
    seen = run(depth=depth, device_depth=device_depth, power=power)
    assert [entry for entry in seen.log if entry[0] in ("begun", "done")] == [
        (stage, m) for m in FIVE for stage in ("begun", "done")
    ]


@pytest.mark.parametrize(("depth", "most"), [(None, 3), (2, 2), (3, 3), (99, 3)])
def test_at_most_so_many_are_under_way_as_the_device_and_the_caller_allow(
    run: Callable[..., Run], depth: int | None, most: int
) -> None:
    assert run(depth=depth).under_way() == most


WAYS_TO_FAIL = {
    "operands": MeasurementError("out_of_memory", "operands need 99 GiB"),
    "burst": MeasurementError("contended", "interrupted 41 batches"),
    "window": MeasurementError("unsupported", "the energy counter did not move for 3 s"),
    "power": MemoryError("no room for a graph"),
}


@pytest.mark.parametrize("m", FIVE)
@pytest.mark.parametrize("stage", WAYS_TO_FAIL)
def test_one_that_fails_costs_no_other_its_row(run: Callable[..., Run], stage: str, m: int) -> None:
    error = WAYS_TO_FAIL[stage]
    seen = run(power=FIVE, trouble=_raise(error, stage, m))
    assert sorted(seen.done) == list(FIVE)
    assert {of: status for of, status in seen.statuses.items() if status != "ok"} == {
        m: getattr(error, "status", "out_of_memory")
    }


@pytest.mark.parametrize("m", FIVE)
def test_one_that_is_refused_before_anything_is_enqueued_costs_no_other_its_row(
    run: Callable[..., Run], m: int
) -> None:
    seen = run(options={m: {"dtype": "bf16"}})
    assert sorted(seen.done) == list(FIVE)
    assert {of: status for of, status in seen.statuses.items() if status != "ok"} == {
        m: "unsupported"
    }


def test_while_power_settles_a_cell_may_be_begun_and_no_more_than_one(
    run: Callable[..., Run],
) -> None:
    sizes = (8, 16, 24, 32, 40, 48, 56)
    seen = run(sizes, power=sizes)
    inside = {
        m: [
            of
            for stage, of in seen.log[seen.at("power", m) : seen.at("window", m)]
            if stage == "begun"
        ]
        for m in sizes
    }
    assert inside[8] == [24]
    assert all(len(begun) <= 1 for begun in inside.values())
    # Whoever is metered finds the one after it ready.
    for m in sizes:
        assert m + 8 not in sizes or seen.at("begun", m + 8) < seen.at("window", m)
    # The one that is metered makes room already.
    assert seen.under_way() == 4
    assert sorted(seen.done) == list(sizes)


def test_after_an_uncapped_window_nobody_comes_before_the_burst(run: Callable[..., Run]) -> None:
    """Another kernel would move the board's voltage."""
    seen = run(power=FIVE)
    for m in FIVE:
        window = seen.at("window", m)
        assert seen.log[window + 1 : window + 3] == [("burst", m), ("timed", m)]


def test_after_a_capped_window_the_board_rests_while_others_go_on(
    device: Device, make_cell: MakeCell, make_backend: Any
) -> None:
    capped = replace(make_backend.POWER, capped=True)
    fake = make_backend(device, depth=3, power=capped)
    live = LiveInstrument(fake, device, Procedure(), "me")
    cells = [make_cell(m=m, power=True) for m in (8, 16, 24)]
    assert len(list(live.measure_all(cells))) == 3
    window = fake.log.index(("window", 8))
    assert fake.log[window + 1] == ("burst", 8)
    assert fake.log[window + 2] != ("timed", 8)


def test_nothing_of_others_is_on_the_device_while_power_is_read(run: Callable[..., Run]) -> None:
    """The queue is empty before the load begins.

    What the next cell enqueues while the load settles is over before the window opens.
    """
    seen = run(power=FIVE)
    for m in FIVE:
        before = seen.log[: seen.at("power", m)]
        assert before[-1][0] == "all waited for"
        inside = seen.log[seen.at("power", m) + 1 : seen.at("window", m)]
        assert [stage for stage, _ in inside] in (
            [],
            ["begun", "operands", "checked", "all waited for"],
            ["begun", "operands", "all waited for"],
        )


@pytest.mark.parametrize("stage", ["operands", "checked", "burst", "timed"])
def test_a_device_that_fails_under_several_cells_is_nobodys_row(
    run: Callable[..., Run], device_fault: Any, stage: str
) -> None:
    def trouble(at_stage: str, m: int) -> None:
        broken.append(m) if (at_stage, m) == (stage, 24) else None
        if broken:
            raise device_fault("cudaErrorIllegalAddress")

    broken: list[int] = []
    seen = run(trouble=trouble)
    assert seen.events[-1] == Fault("cudaErrorIllegalAddress")
    assert sum(isinstance(event, Fault) for event in seen.events) == 1
    assert {event.fatal for event in seen.events[:-1] if isinstance(event, Outcome)} <= {False}
    assert set(seen.statuses) <= {8, 16}
    assert set(seen.statuses.values()) <= {"ok"}
    # Nobody else is drawn into it.
    assert ("begun", 40) not in seen.log[seen.at(stage, 24) :]
    assert seen.log[-1] == ("fault", 0)


def test_a_device_that_fails_as_a_cell_begins_draws_nobody_else_into_it(
    run: Callable[..., Run], device_fault: Any
) -> None:
    """The others' work may still come through; then it is clear whose fault it was."""
    seen = run(trouble=_raise(device_fault("cudaErrorLaunchFailure"), "operands", 16))
    assert [entry for entry in seen.log if entry[0] == "begun"] == [("begun", 8), ("begun", 16)]
    assert isinstance(seen.events[-1], Fault) or (
        seen.events[-1].fatal and seen.events[-1].row["m"] == 16
    )
    assert seen.log.count(("fault", 0)) + seen.log.count(("done", 16)) == 1


@pytest.mark.parametrize("stage", ["operands", "checked", "burst", "timed", "power", "window"])
def test_a_device_that_fails_under_one_cell_alone_is_its_row(
    run: Callable[..., Run], device_fault: Any, stage: str
) -> None:
    seen = run(
        (8, 16),
        depth=1,
        power=(8, 16),
        trouble=_raise(device_fault("cudaErrorLaunchFailure"), stage, 16),
    )
    first, last = seen.events
    assert isinstance(first, Outcome)
    assert not first.fatal
    assert isinstance(last, Outcome)
    assert last.fatal
    assert seen.statuses == {8: "ok", 16: "cuda_error"}


@pytest.mark.parametrize("stage", ["power", "window"])
def test_a_device_that_fails_under_the_metered_cell_is_nobodys_row_either(
    run: Callable[..., Run], device_fault: Any, stage: str
) -> None:
    seen = run(power=(8,), trouble=_raise(device_fault("cudaErrorLaunchFailure"), stage, 8))
    assert seen.events == [Fault("cudaErrorLaunchFailure")]


def test_the_last_of_a_call_is_alone_again(run: Callable[..., Run], device_fault: Any) -> None:
    seen = run((8, 16), trouble=_raise(device_fault("cudaErrorLaunchFailure"), "timed", 16))
    assert isinstance(seen.events[-1], Outcome)
    assert seen.events[-1].fatal
    assert seen.statuses == {8: "ok", 16: "cuda_error"}


@pytest.mark.parametrize("stage", ["operands", "checked", "burst", "timed", "power", "window"])
def test_a_bug_of_ours_is_raised_whoever_else_is_under_way(
    run: Callable[..., Run], stage: str
) -> None:
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run(power=FIVE, trouble=_raise(RuntimeError("a bug of ours"), stage, 24))


NO_ROOM = [MemoryError("no room"), MeasurementError("out_of_memory", "no room")]


def _fits_alone(
    ms: Sequence[int], error: Exception, log: Callable[[], list[tuple[str, int]]]
) -> Trouble:
    """These cells find room only when no other is under way: known from what was begun and done."""

    def trouble(stage: str, m: int) -> None:
        begun, done = (sum(at == what for at, _ in log()) for what in ("begun", "done"))
        if stage == "operands" and m in ms and begun - done > 1:
            raise error

    return trouble


@pytest.mark.parametrize("error", NO_ROOM, ids=repr)
@pytest.mark.parametrize("m", FIVE)
def test_a_cell_that_finds_no_room_is_tried_again_when_the_others_are_done(
    device: Device, make_cell: MakeCell, make_backend: Any, m: int, error: Exception
) -> None:
    backend: Any = make_backend(
        device, depth=3, trouble=_fits_alone([m], error, lambda: backend.log)
    )
    live = LiveInstrument(backend, device, Procedure(), "me", wait=lambda _: None)
    statuses = {}
    for event in live.measure_all(
        [make_cell(m=of) for of in FIVE],
        begun=lambda cell: backend.log.append(("begun", cell.gemm.m)),
    ):
        assert isinstance(event, Outcome)
        statuses[event.row["m"]] = event.row["status"]
        backend.log.append(("done", event.row["m"]))
    assert statuses == dict.fromkeys(FIVE, "ok")
    tries = [i for i, entry in enumerate(backend.log) if entry == ("operands", m)]
    assert len(tries) == (1 if m == 8 else 2)
    # Afterwards cells are under way together again
    assert m == 40 or Run([], backend.log[tries[-1] :], []).under_way() >= min(
        2, len(FIVE) - FIVE.index(m) - 1
    )


@pytest.mark.parametrize("error", NO_ROOM, ids=repr)
def test_a_cell_that_finds_no_room_alone_either_is_a_row(
    run: Callable[..., Run], error: Exception
) -> None:
    seen = run(trouble=_raise(error, "operands", 24))
    assert seen.statuses == {**dict.fromkeys(FIVE, "ok"), 24: "out_of_memory"}
    assert seen.log.count(("operands", 24)) == 2
    second = len(seen.log) - 1 - seen.log[::-1].index(("operands", 24))
    assert {("done", 8), ("done", 16)} <= set(seen.log[:second])
    assert ("begun", 32) not in seen.log[:second]


def test_the_only_cell_is_not_tried_again_for_room(run: Callable[..., Run]) -> None:
    seen = run((8,), trouble=_raise(MemoryError("no room"), "operands", 8))
    assert seen.statuses == {8: "out_of_memory"}
    assert seen.log.count(("operands", 8)) == 1


def test_a_cell_that_finds_no_room_beside_a_metered_one_is_tried_again(
    run: Callable[..., Run],
) -> None:
    """Depth 2, and the metered cell is the only other one."""
    failed = []

    def trouble(stage: str, m: int) -> None:
        if (stage, m) == ("operands", 24) and not failed:
            failed.append(m)
            raise MemoryError("no room")

    seen = run((8, 16, 24), power=(8, 16), depth=2, trouble=trouble)
    assert failed == [24]
    assert seen.statuses == {8: "ok", 16: "ok", 24: "ok"}


def test_two_cells_that_find_no_room_do_not_wait_for_each_other(run: Callable[..., Run]) -> None:
    """One of them was begun before but waited for a neighbour to leave."""
    refused = Counter[int]()

    def trouble(stage: str, m: int) -> None:
        refused[m] += stage == "operands"
        if stage == "operands" and m in (16, 24) and refused[m] == 1:
            raise MemoryError("no room")

    seen = run((8, 16, 24), busy=[None, "busy"], trouble=trouble)
    assert seen.statuses == {8: "ok", 16: "ok", 24: "ok"}
    assert refused[16] == 2
    assert refused[24] == 2


def test_contention_rests_through_the_wait_that_was_given(run: Callable[..., Run]) -> None:
    seen = run(busy=["busy"] * 3)
    assert set(seen.statuses.values()) == {"ok"}
    first, second, *_ = CONTENTION_WAITS_S
    # One cell finds the neighbour there twice, another once.
    assert seen.waited == [first, second, first]
    assert sorted(seen.done) == list(FIVE)


def _one_look_sees(neighbour: list[str]) -> Iterator[str | None]:
    """What looks see: whatever was put into the list, once."""
    while True:
        yield neighbour.pop() if neighbour else None


def test_a_neighbour_of_a_moment_spoils_all_that_are_under_way_and_no_others(
    run: Callable[..., Run],
) -> None:
    neighbour: list[str] = []
    came: list[int] = []

    def trouble(stage: str, m: int) -> None:
        if (stage, m) == ("timed", 16) and not came:
            came.append(m)
            neighbour.append("1 other process(es) hold this GPU")

    seen = run(trouble=trouble, busy=_one_look_sees(neighbour))
    assert seen.statuses == dict.fromkeys(FIVE, "ok")
    bursts = Counter(m for stage, m in seen.log if stage == "burst")
    # The first was done before, the last began afterwards.
    assert bursts == {8: 1, 16: 2, 24: 2, 32: 2, 40: 1}


def test_what_fails_beside_a_neighbour_is_contended_and_tried_again(
    run: Callable[..., Run],
) -> None:
    """It may have taken the memory, or the clock."""
    failed: list[int] = []
    neighbour: list[str] = []

    def trouble(stage: str, m: int) -> None:
        if (stage, m) == ("burst", 16) and not failed:
            failed.append(m)
            neighbour.append("1 other process(es) hold this GPU")
            raise MeasurementError("throttled", "the clock was at 900 MHz")

    seen = run((8, 16), trouble=trouble, busy=_one_look_sees(neighbour))
    assert failed == [16]
    assert seen.statuses == {8: "ok", 16: "ok"}


def test_a_caller_that_leaves_early_does_not_slow_the_next(
    run: Callable[..., Run], device: Device, make_cell: MakeCell, make_backend: Any
) -> None:
    failed: list[int] = []

    def trouble(stage: str, m: int) -> None:
        if (stage, m) == ("operands", 24) and not failed:
            failed.append(m)
            raise MemoryError("no room")

    backend = make_backend(device, depth=3, trouble=trouble)
    live = LiveInstrument(backend, device, Procedure(), "me")
    left = live.measure_all([make_cell(m=m) for m in FIVE])
    # Cell 24 waits until it is alone
    assert [next(left), next(left)]
    assert failed == [24]
    begun: list[int] = []
    events = live.measure_all(
        [make_cell(m=m) for m in FIVE], begun=lambda cell: begun.append(cell.gemm.m)
    )
    next(events)
    assert begun == list(FIVE[:2])
    del left
    assert len(list(events)) == 4


def test_cells_under_way_share_the_waits_for_a_neighbour(run: Callable[..., Run]) -> None:
    """Else eight of them would wait eight times as long for one that stays."""
    seen = run(busy=["1 other process(es) hold this GPU"] * 100)
    assert set(seen.statuses.values()) == {"contended"}
    assert sum(seen.waited) < sum(CONTENTION_WAITS_S) + max(CONTENTION_WAITS_S)
