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
from gemmcast.errors import InputError

KNOWN: Final = Path(__file__).with_name("known_devices.json")


def known_device(text: str) -> Device:
    """The device of a file, or the known one whose name holds every word of `text`.

    Raises:
        InputError: no file, and not the words of one known device.
    """
    if text.endswith(".json") or Path(text).is_file():
        return _described(Path(text))
    words = text.lower().split()
    devices = known_devices()
    fitting = [device for device in devices if all(word in device.name.lower() for word in words)]
    if len(fitting) == 1 and words:
        return fitting[0]
    names = ", ".join(device.name for device in devices)
    way_out = f"name a JSON file of the device, or words of one of: {names}"
    rule = "is no known device" if not fitting else "fits several devices"
    raise InputError("--device", text, rule, way_out)


def known_devices() -> list[Device]:
    """Every device of the file beside this one."""
    described = json.loads(KNOWN.read_text(encoding="utf-8"))
    return [Device(**fields) for fields in described]


def _described(path: Path) -> Device:
    try:
        return Device.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        way_out = "name a file with a device description in JSON"
        raise InputError("--device", str(path), f"can't be read ({error})", way_out) from None
