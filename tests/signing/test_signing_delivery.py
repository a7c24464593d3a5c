"""From the registry to the nodes of a run: real registry, watch, scheduler and nodes; no Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from coordinator.fleet.champion import ChampionWatch
from coordinator.fleet.connection import first_line
from coordinator.fleet.delivery import Delivery, read_receipts, write_record
from gemmcast import modeldir
from gemmcast.errors import ModelFileError
from gemmcast.modeldir import ShippedModel
from registry.registry import Registry
from registry.signatures import Signatures
from signing.keys import PUBLIC_KEYS
from signing.node import take_model
from tests.made_up_clock import Clock
from tests.signing.pairs import Pair

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1
AGENTS = ("one/gpu0", "two/gpu0")


class Nodes:
    """The agents of two nodes, each with the public keys of its node."""

    def __init__(self, folder: Path, keys: dict[str, Path]) -> None:
        self._folder = folder
        self._keys = keys
        self.clock = Clock()
        self.delivery = Delivery(self.clock)
        for agent in AGENTS:
            self.delivery.join(agent, agent.partition("/")[0])

    def directory(self, agent: str) -> Path:
        return self._folder / agent.partition("/")[0]

    def push(self, newest: tuple[ShippedModel, str] | None) -> None:
        """Every agent takes it, or says why not."""
        assert newest is not None
        model, version = newest
        self.delivery.want(version)
        for agent in self.delivery.due():
            self.delivery.sent(agent)
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv(PUBLIC_KEYS, str(self._keys.get(agent, "")))
                try:
                    taken = take_model(self.directory(agent), model, version)
                    self.delivery.answered(agent, taken)
                except ModelFileError as error:
                    self.delivery.failed(agent, str(error))


@pytest.fixture
def nodes(tmp_path: Path, pair: Pair) -> Nodes:
    """Node `two` has no key."""
    return Nodes(tmp_path / "nodes", {"one/gpu0": pair.public})


def watch_of(directory: Path, signatures: Signatures | None = None) -> ChampionWatch:
    return ChampionWatch(Registry(directory, signatures), on_new=lambda *_: None)


def test_a_promotion_and_a_roll_back_reach_every_node(
    directory: Path, pair: Pair, nodes: Nodes
) -> None:
    head = Signatures(pair.private)
    watch, registry = watch_of(directory, head), Registry(directory, head)
    steps: dict[str, Callable[[], object]] = {
        "2": lambda: None,
        "3": lambda: registry.promote("3"),
        "1": lambda: registry.promote("1"),
    }
    for version, step in steps.items():
        step()
        watch.look()
        nodes.push(watch.newest())
        assert nodes.delivery.state().text() == f"Model {version} is on 2 of 2 nodes."
    registry.rollback()
    watch.look()
    nodes.push(watch.newest())
    assert nodes.delivery.state().text() == "Model 3 is on 2 of 2 nodes."


def test_a_node_with_a_key_refuses_what_is_unsigned_and_status_says_so(
    directory: Path, nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The head has no key here: it promotes a version that nobody signed."""
    Registry(directory).promote("4")
    watch = watch_of(directory)
    watch.look()
    with caplog.at_level(logging.WARNING):
        nodes.push(watch.newest())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("agent one/gpu0 has not taken model 4: signature = 'model 4': is missi")
    assert line.count("\n") == 0
    write_record(tmp_path / "nodes.json", nodes.delivery.record())
    receipts = {one.agent: one.text() for one in read_receipts(tmp_path / "nodes.json")}
    assert "is missing, and GEMMCAST_PUBLIC_KEYS is set" in receipts["one/gpu0"]
    assert receipts["two/gpu0"].startswith("model 4, taken")
    assert not (nodes.directory("one/gpu0") / modeldir.CURRENT).exists()


def test_a_champion_that_is_signed_later_goes_out_in_the_same_run(
    directory: Path, pair: Pair, nodes: Nodes
) -> None:
    Registry(directory).promote("4")
    watch = watch_of(directory)
    watch.look()
    nodes.push(watch.newest())
    watch.look()
    assert watch.newest() is None
    Registry(directory, Signatures(pair.private)).sign("champion")
    watch.look()
    nodes.push(watch.newest())
    assert nodes.delivery.state().text() == "Model 4 is on 2 of 2 nodes."


def test_a_head_with_a_key_sends_nothing_that_is_unsigned(directory: Path, pair: Pair) -> None:
    Registry(directory).promote("4")
    watch = watch_of(directory, Signatures(pair.private))
    with pytest.raises(ModelFileError, match="version 4 in .* is missing"):
        watch.look()
    assert watch.newest() is None


def test_an_old_signature_in_the_registry_takes_no_node_back(
    directory: Path, pair: Pair, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes the registry without the signing key moves the alias to a retired version."""
    watch = watch_of(directory)
    watch.look()
    nodes.push(watch.newest())
    registry = Registry(directory)
    registry._backend.set_alias("champion", "1")
    watch.look()
    nodes.push(watch.newest())
    state = nodes.delivery.state()
    assert "is older than that of version 2 here" in state.missing["one/gpu0"]
    assert modeldir.read_current(nodes.directory("one/gpu0")).version == "2"
    assert modeldir.read_current(nodes.directory("two/gpu0")).version == "1"


def test_what_an_agent_refuses_is_said_in_its_own_words() -> None:
    """Ray's error begins with a traceback and the name of a class."""
    refused = ModelFileError("signature", "model 7", "is missing", "sign it")
    remote = RayTaskError("take_model", "Traceback ...", refused).as_instanceof_cause()
    assert first_line(remote) == "signature = 'model 7': is missing; sign it"
