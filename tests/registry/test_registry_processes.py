"""Many processes at once, and killed ones: forked by one driver that imports MLflow once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gemmcast.card import ModelCard
from registry.registry import Registry

MakeModel = Callable[..., bytes]
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1
ROOT = Path(__file__).parents[2]
RACERS, KILLS = 4, 8

DRIVER = '''
import json, os, signal, sys, time, traceback
from pathlib import Path
import mlflow, onnx
import mlflow.store.tracking.sqlalchemy_store
import mlflow.store.model_registry.sqlalchemy_store
from gemmcast.card import ModelCard
from registry.registry import Registry

directory, model = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
card = ModelCard.from_json(Path(sys.argv[3]).read_text())

def fork(task):
    child = os.fork()
    if child == 0:
        try:
            task()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child

def publish():
    Registry(directory).publish(model, card)

def publish_for_ever():
    registry = Registry(directory)
    while True:
        registry.promote(registry.publish(model, card).number)

def killed(task, pattern, seconds):
    """Killed that long after the task has made a path of this pattern."""
    before = set(directory.glob(pattern))
    child = fork(task)
    while not set(directory.glob(pattern)) - before:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

answer = {"creator": killed(publish, ".new-*", 0.2), "left": sorted(os.listdir(directory))}
racers = [fork(publish) for _ in range(int(sys.argv[4]))]
answer["racers"] = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in racers]
answer["after"] = sorted(os.listdir(directory))
kills = int(sys.argv[5])
# The last one has the time to promote, on a busy machine too.
delays = [0.013 * i for i in range(kills - 1)] + [2.0]
answer["publishers"] = [killed(publish_for_ever, "artifacts/*", delay) for delay in delays]
print(json.dumps(answer))
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What the driver saw; exit codes, -9 for killed."""

    directory: Path
    creator: int
    left: list[str]
    racers: list[int]
    after: list[str]
    publishers: list[int]
    stderr: str


@pytest.fixture(scope="module")
def driven(
    tmp_path_factory: pytest.TempPathFactory, make_model: MakeModel, card: ModelCard
) -> Driven:
    """A creator killed halfway, then four processes at once, then publishers killed in turn."""
    base = tmp_path_factory.mktemp("processes")
    (base / "model").write_bytes(make_model())
    (base / "card").write_text(card.to_json())
    arguments = [base / "registry", base / "model", base / "card", RACERS, KILLS]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return Driven(
        directory=base / "registry", stderr=ran.stderr, **json.loads(ran.stdout.splitlines()[-1])
    )


def test_a_creator_killed_halfway_leaves_no_database(driven: Driven) -> None:
    assert driven.creator == -9
    assert "mlflow.db" not in driven.left
    assert any(name.startswith(".new-") for name in driven.left)


def test_four_processes_open_a_new_registry_at_once(driven: Driven) -> None:
    assert driven.racers == [0] * RACERS, driven.stderr
    assert driven.after == [".lock", "artifacts", "mlflow.db"]
    numbers = [version.number for version in Registry(driven.directory).list()]
    assert numbers[-RACERS:] == ["4", "3", "2", "1"]


def test_publishers_killed_anywhere_leave_only_whole_versions(
    driven: Driven, make_model: MakeModel, card: ModelCard
) -> None:
    assert driven.publishers == [-9] * KILLS, driven.stderr
    registry = Registry(driven.directory)
    numbers = [version.number for version in registry.list()]
    assert len(numbers) > RACERS
    for number in numbers:
        registry.verify(number)
    assert registry.champion() is not None
    version = registry.promote(registry.publish(make_model(1), card).number)
    assert version.status == "champion"
    assert registry.rollback().status == "champion"
