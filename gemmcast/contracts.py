"""Files of earlier contracts: what their queries hold in place of what a query holds now.

    contract 2, 3:  field 29 is `empty_launch_us`, what launching an empty kernel costs the host
    contract 4:     field 29 is `empty_kernel_us`, what an empty kernel takes on the GPU

gemmcast/query.py fills the rows of the present contract only. For an earlier file the description
of the device is put in that file's terms first, so its answers are those that it always gave; what
only changed its name is in gemmcast/renames.py. Knows neither files nor rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gemmcast.device import Device

EMPTY_KERNEL_SINCE: Final = 4
"""The contract from which on no input of a model depends on the host."""
HOST_LAUNCH_US: Final = 3.0
"""In place of an unknown `empty_launch_us`, before that: what imports estimated. [us]"""


def device_for(device: Device, contract: int) -> Device:
    """The device, for queries to a file of that contract."""
    if contract >= EMPTY_KERNEL_SINCE:
        return device
    return replace(device, empty_kernel_us=device.empty_launch_us or HOST_LAUNCH_US)
