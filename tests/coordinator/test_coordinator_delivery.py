"""Who has which model version: answers, failures, silence, and what `status` reads of it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from coordinator.fleet.delivery import LATE_S, RETRY_S, Delivery, read_receipts, write_record
from tests.made_up_clock import Clock


@pytest.fixture
def delivery(clock: Clock) -> Delivery:
    """Two nodes, the first with two agents; model 2 was sent to all three."""
    delivery = Delivery(clock)
    for agent in ("one/gpu0", "one/gpu1", "two/gpu0"):
        delivery.join(agent, agent.partition("/")[0])
    delivery.want("2")
    for agent in delivery.due():
        delivery.sent(agent)
    return delivery


def test_nothing_is_sent_before_there_is_a_champion(clock: Clock) -> None:
    delivery = Delivery(clock)
    delivery.join("one/gpu0", "one")
    assert delivery.due() == []
    assert delivery.is_complete()
    assert "no champion yet" in delivery.state().text()


def test_it_is_complete_when_every_agent_has_answered(delivery: Delivery) -> None:
    delivery.answered("one/gpu0", "2")
    delivery.answered("two/gpu0", "2")
    assert not delivery.is_complete()
    assert delivery.state().nodes_with_version == 2
    assert delivery.state().missing == {"one/gpu1": "has not answered"}
    delivery.answered("one/gpu1", "2")
    assert delivery.is_complete()
    assert delivery.state().text() == "Model 2 is on 2 of 2 nodes."
    assert delivery.due() == []


def test_an_agent_that_starts_later_is_due_at_once(delivery: Delivery) -> None:
    delivery.join("three/gpu0", "three")
    assert delivery.due() == ["three/gpu0"]


def test_another_version_in_the_directory_is_no_answer(delivery: Delivery, clock: Clock) -> None:
    delivery.answered("two/gpu0", "1")
    state = delivery.state()
    assert state.nodes_with_version == 0
    assert state.missing["two/gpu0"] == "its model directory holds model 1"
    clock.now += RETRY_S
    assert delivery.due() == ["two/gpu0"]


def test_a_failure_is_named_and_tried_again_after_a_pause(
    delivery: Delivery, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    delivery.failed("two/gpu0", "No space left on device")
    assert delivery.due() == []
    assert delivery.state().missing["two/gpu0"] == "No space left on device"
    clock.now += RETRY_S
    assert delivery.due() == ["two/gpu0"]
    delivery.sent("two/gpu0")
    delivery.failed("two/gpu0", "No space left on device")
    assert len(caplog.records) == 1, "the same failure is logged once"
    clock.now += RETRY_S
    delivery.sent("two/gpu0")
    delivery.answered("two/gpu0", "2")
    assert "two/gpu0" not in delivery.state().missing


def test_a_silent_agent_is_named_once_and_gets_no_second_call(
    delivery: Delivery, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    delivery.answered("one/gpu0", "2")
    delivery.answered("one/gpu1", "2")
    for _ in range(3):
        clock.now += LATE_S + 1.0
        assert delivery.due() == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert delivery.state().missing == {"two/gpu0": "no answer for 10 s"}


def test_a_newer_version_waits_for_the_answer_to_the_older_one(delivery: Delivery) -> None:
    """Else the older one could arrive last."""
    delivery.answered("one/gpu0", "2")
    delivery.want("1")
    assert delivery.due() == ["one/gpu0"]
    delivery.sent("one/gpu0")
    delivery.answered("one/gpu0", "1")
    assert delivery.state().nodes_with_version == 0, "one/gpu1 may still write version 2"
    delivery.answered("one/gpu1", "2")
    assert delivery.due() == ["one/gpu1"]
    delivery.sent("one/gpu1")
    delivery.answered("one/gpu1", "1")
    assert delivery.state().nodes_with_version == 1


def test_status_reads_what_a_run_has_kept(delivery: Delivery, tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    assert read_receipts(path) == []
    delivery.answered("one/gpu0", "2")
    delivery.failed("two/gpu0", "the actor died")
    write_record(path, delivery.record())
    first, second, third = read_receipts(path)
    assert re.fullmatch(r"model 2, taken 0:\d\d:\d\d ago", first.text())
    assert second.text() == "no model yet"
    assert third.text() == "the actor died"
    path.write_text("{")
    assert read_receipts(path) == []


def test_a_record_that_cannot_be_written_is_a_warning(
    delivery: Delivery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    write_record(tmp_path / "file" / "nodes.json", delivery.record())
    assert "can't be written" in caplog.text
