"""What a run does with a registry that fails: measuring needs no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.fleet import session
from coordinator.fleet.champion import ChampionWatch
from coordinator.fleet.session import Places, RunSession
from coordinator.plan.schema import Plan
from coordinator.progress import RunDisplay
from coordinator.workspace import Workspace
from costmodel.train import TrainedModel
from gemmcast.errors import GemmcastError, ModelFileError, UnavailableError
from gemmcast.modeldir import ShippedModel
from registry.registry import Registry


class FailingRegistry(Registry):
    """Its champion can't be read the first `failures` times."""

    failures = 0
    error: GemmcastError = UnavailableError("registry: database is locked")

    def ship(self, ref: str) -> ShippedModel:
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().ship(ref)


@pytest.fixture
def registry(tmp_path: Path, candidate: TrainedModel) -> FailingRegistry:
    """It has a champion."""
    made = FailingRegistry(tmp_path / "registry")
    version = made.publish(candidate.model, candidate.card)
    made.promote(version.number)
    return made


@pytest.fixture
def run(tmp_path: Path, make_plan: Callable[..., Plan], registry: FailingRegistry) -> RunSession:
    """A run before it has a cluster."""
    made = RunSession(make_plan(), Workspace(tmp_path), Places(), RunDisplay())
    made.registry, made._bases = registry, []
    return made


def test_a_damaged_champion_refuses_no_run(run: RunSession, registry: FailingRegistry) -> None:
    registry.failures = 1_000_000
    registry.error = ModelFileError("version 1", "champion", "its bytes have changed")
    assert run._watch_champion() == 0
    assert run._champions.newest() is None
    run._champions.close()
    with pytest.raises(ModelFileError):
        run._champions.look()


@pytest.fixture
def pauses(
    run: RunSession, registry: FailingRegistry, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """Those of a run that watches for champions; none of them lasts."""
    made: list[float] = []
    monkeypatch.setattr(session, "sleep", made.append)
    run._champions = ChampionWatch(registry, on_new=lambda *_: None)
    return made


def test_a_version_that_the_registry_gives_late_is_pushed_before_the_run_ends(
    run: RunSession,
    registry: FailingRegistry,
    candidate: TrainedModel,
    pauses: list[float],
) -> None:
    """Else the run was over before the watch looked again, and the nodes had no model."""
    registry.failures = 2
    run._note_training(candidate.card, "1")
    newest = run._champions.newest()
    assert newest is not None
    assert newest[1] == "1"
    assert len(pauses) == 2


def test_a_registry_that_stays_away_does_not_keep_the_trainer(
    run: RunSession,
    registry: FailingRegistry,
    candidate: TrainedModel,
    pauses: list[float],
) -> None:
    registry.failures = 1_000_000
    run._note_training(candidate.card, "1")
    assert tuple(pauses) == session.LOOK_PAUSES_S
    assert run._champions.newest() is None
