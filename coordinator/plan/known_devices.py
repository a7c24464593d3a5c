"""Devices that a plan can be sized for where none of them is present.

known_devices.json has one device per type of which datasets/ holds a recording: medians over its
boards. Any other device comes from a file with its description, as `gemmcast info --json` prints
it. Knows neither this machine nor a cluster.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from gemmcast.device import Device
from gemmcast.device_names import chosen

KNOWN: Final = Path(__file__).with_name("known_devices.json")


def known_device(text: str) -> Device:
    """The device of a file, or the known one that `text` names (gemmcast/device_names.py).

    Raises:
        InputError: no file, and not the name of one known device.
    """
    if text.endswith(".json") or Path(text).is_file():
        return Device.read(Path(text), strict=False)
    by_name = {device.name: device for device in known_devices()}
    return by_name[chosen("--device", text, by_name, "or name a JSON file of the device")]


def known_devices() -> list[Device]:
    """Every device of the file beside this one."""
    described = json.loads(KNOWN.read_text(encoding="utf-8"))
    return [Device(**fields) for fields in described]
