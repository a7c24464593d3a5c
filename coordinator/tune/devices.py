"""The option --devices: which devices a tuning measures on.

    auto, cuda, cpu            as [devices] of a plan
    replay:FILE[@DEVICE]       a recorded table answers; several, separated by commas, are a fleet
                               of several types. Without @DEVICE all devices of the file take part

Reads the names in the tables, nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from coordinator.plan.schema import Devices, Recorded
from coordinator.tune.recording import devices_in
from gemmcast.device_names import chosen
from gemmcast.errors import InputError

REPLAY = "replay:"
KINDS = ("auto", "cuda", "cpu")
WAY_OUT = "use auto, cuda, cpu or replay:FILE[@DEVICE]"


class TunedOn(Devices):
    """The table [devices] of a tuning."""

    tables: tuple[Recorded, ...] = ()
    """What each agent of a replay answers from."""

    def recordings(self) -> tuple[Recorded, ...]:
        """What each agent of a replay answers from."""
        return self.tables


def parse_devices(text: str) -> TunedOn:
    """The option's value. Raises InputError for any other text, or for a file that is no table."""
    if text in KINDS:
        kind = cast("Literal['auto', 'cuda', 'cpu']", text)
        return TunedOn(kind=kind, second_board=0.0)
    tables: list[Recorded] = []
    for word in text.split(","):
        tables += _tables(word.strip(), text)
    first = tables[0]
    return TunedOn(
        kind="replay", dataset=first.dataset, device_name=first.device_name, tables=tuple(tables)
    )


def _tables(word: str, text: str) -> list[Recorded]:
    if not word.startswith(REPLAY):
        raise InputError("--devices", text, f"{word!r} is none of these", WAY_OUT)
    file, at, device = word.removeprefix(REPLAY).partition("@")
    dataset = Path(file).resolve()
    names = devices_in(dataset)
    if at:
        names = [chosen("--devices", device, names, f"those are the devices of {file}")]
    return [Recorded(dataset=str(dataset), device_name=name) for name in names]
