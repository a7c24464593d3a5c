"""Tuned tables in a registry: one lineage, with one champion, per type of device and objective.

    tables = TableRegistry("workspace/registry")
    tables.publish(table)
    tables.lineage("h100", "time").promote("1")

Each lineage is a registered model of its own beside the models, so registries of models stay as
they are. Versions of driver and library do not part lineages: a table that was tuned after an
update is the next version. Knows nothing of MLflow or of nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from gemmcast import device_names
from gemmcast.errors import InputError
from gemmcast.modeldir import sha256
from gemmcast.table_key import IDENTITY, TableKey
from gemmcast.tabledir import Shipped
from gemmcast.tuned_json import read_key
from gemmcast.tuned_table import TunedTable
from registry.backend import RegistryBackend, open_backend
from registry.lineage import Lineage
from registry.records import VersionRecord
from registry.signatures import SIGNATURE_TAG, Files, Signatures
from registry.versions import CHAMPION, ROWS_TAG, SHA256_TAG, Version, champion_stamp
from signing.statement import TABLE_FILE

PREFIX: Final = "gemmcast-table-"
"""Of the registered models' names."""
KEY_TAG: Final = "gemmcast.table_key"
"""The key as JSON, at every version."""
_LONGEST_SLUG: Final = 80


class PublishedTable(NamedTuple):
    """A version with its content."""

    table: TunedTable
    data: bytes
    """The table as it was published."""
    version: Version


class TableLineage(Lineage):
    """The tables of one type of device and one objective.

    Args:
        backend: of its registered model.
        key: of its newest version.
        signatures: which keys sign and check.
    """

    def __init__(
        self, backend: RegistryBackend, key: TableKey, signatures: Signatures | None = None
    ) -> None:
        super().__init__(backend, signatures)
        self.key = key

    @property
    def device(self) -> str:
        """The type of device, for people."""
        return device_label(self.key)

    def publish(self, table: TunedTable) -> Version:
        """Add a version without an alias."""
        data = table.to_json().encode()
        tags = {
            SHA256_TAG: sha256(data),
            ROWS_TAG: str(len(table)),
            KEY_TAG: json.dumps(asdict(table.key)),
        }
        return self._add({TABLE_FILE: data}, tags)

    def load(self, ref: str) -> PublishedTable:
        """A version with its content. Raises InputError when that is damaged."""
        record, version = self._found(ref)
        data = self._read(record)
        table = TunedTable.from_json(data, self._source(record))
        return PublishedTable(table, data, version)

    def ship(self, ref: str) -> Shipped:
        """A champion for the nodes.

        Raises:
            InputError: it is damaged; or a key is set, and it is not signed as a champion.
        """
        record, _ = self._found(ref)
        files = self._checked(record, "champion")
        signature = record.tags.get(SIGNATURE_TAG)
        return Shipped(data=files[TABLE_FILE], version=record.number, signature=signature)

    def _whole(self, record: VersionRecord) -> Files:
        data = self._read(record)
        TunedTable.from_json(data, self._source(record))
        return {TABLE_FILE: data}

    def _read(self, record: VersionRecord) -> bytes:
        data = self._backend.read(record, TABLE_FILE)
        actual, published = sha256(data), record.tags[SHA256_TAG]
        if actual != published:
            rule = f"damaged: SHA-256 {actual[:12]}, published with {published[:12]}"
            way_out = "promote another version, or publish the table again"
            raise InputError("table", self._source(record), rule, way_out)
        return data


class TableRegistry:
    """The tuned tables in a directory, or on an MLflow tracking server.

    Args:
        uri: a directory, or the http(s):// URI of a tracking server; that of the models.
        signatures: which keys sign and check; None: those of the environment, if it names any.
    """

    def __init__(self, uri: str | Path, signatures: Signatures | None = None) -> None:
        self._backend = open_backend(uri)
        self._signatures = signatures or Signatures()

    def publish(self, table: TunedTable) -> tuple[TableLineage, Version]:
        """Add a version to the lineage of the table's key, without an alias."""
        backend = self._backend.named(_name_of(table.key))
        lineage = TableLineage(backend, table.key, self._signatures)
        return lineage, lineage.publish(table)

    def lineages(self) -> list[TableLineage]:
        """Every lineage, by device and objective. A crash in `publish` leaves one without versions,
        which is left out."""
        lineages: list[TableLineage] = []
        for name in self._backend.states_of(PREFIX):
            backend = self._backend.named(name)
            published = [one for one in backend.snapshot().records if KEY_TAG in one.tags]
            if published:
                newest = max(published, key=lambda one: int(one.number))
                lineages.append(TableLineage(backend, _key_of(newest), self._signatures))
        return sorted(lineages, key=lambda lineage: (lineage.device, lineage.key.objective))

    def lineage(self, device: str | None = None, objective: str | None = None) -> TableLineage:
        """The lineage that is meant.

        Args:
            device: words of its device, such as `h100` or `h200 600 w`; None if there is only one.
            objective: None if there is only one.

        Raises:
            InputError: none fits, or several do.
        """
        every = self.lineages()
        if not every:
            way_out = "publish one first: python -m registry tables publish FILE"
            raise InputError("registry", self._backend.shown, "holds no tuned table", way_out)
        label = _chosen("--device", device, [one.device for one in every])
        of_device = [one for one in every if one.device == label]
        wanted = _chosen("--objective", objective, [one.key.objective for one in of_device])
        (lineage,) = [one for one in of_device if one.key.objective == wanted]
        return lineage

    def champions(self) -> dict[str, str]:
        """Lineage -> stamp of its champion (`champion_stamp`), in one cheap question to MLflow."""
        stamps: dict[str, str] = {}
        for name, state in sorted(self._backend.states_of(PREFIX).items()):
            stamp = champion_stamp(state)
            if stamp is not None:
                stamps[name] = stamp
        return stamps

    def shipped(self) -> list[Shipped]:
        """Every champion, for the nodes. Raises InputError when one is damaged."""
        shipped: list[Shipped] = []
        for lineage in self.lineages():
            if lineage.champion_number() is not None:
                shipped.append(lineage.ship(CHAMPION))
        return shipped


def device_label(key: TableKey) -> str:
    """A type of device with what tells it from others of its name."""
    facts: list[str] = []
    if key.mig:
        facts.append("MIG")
    if key.compute_units is not None:
        facts.append(f"{key.compute_units} units")
    if key.power_limit_w is not None:
        facts.append(f"{key.power_limit_w:g} W")
    return f"{key.device} ({', '.join(facts)})" if facts else key.device


def _name_of(key: TableKey) -> str:
    """The registered model of a lineage: readable, and different for every identity."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{key.device} {key.objective}").strip("-")
    identity = {name: getattr(key, name) for name in (*IDENTITY, "objective")}
    digest = sha256(json.dumps(identity, sort_keys=True).encode())[:8]
    return f"{PREFIX}{words[:_LONGEST_SLUG]}-{digest}"


def _key_of(record: VersionRecord) -> TableKey:
    source = f"version {record.number}"
    try:
        values = json.loads(record.tags[KEY_TAG])
    except ValueError as error:
        rule = f"{source}: its tag {KEY_TAG} is damaged ({error})"
        raise InputError("table", record.tags[KEY_TAG], rule, "publish it again") from None
    return read_key(values, source)


def _chosen(option: str, text: str | None, names: Iterable[str]) -> str:
    """The name that an option means."""
    every: Sequence[str] = sorted(set(names))
    if text is None and len(every) == 1:
        return every[0]
    if text is None:
        rule = "must be given: the registry has tables for several"
        raise InputError(option, text, rule, f"name one of: {', '.join(every)}")
    if option == "--device":
        return device_names.chosen(option, text, every)
    if text not in every:
        raise InputError(option, text, "no table has it", f"name one of: {', '.join(every)}")
    return text
