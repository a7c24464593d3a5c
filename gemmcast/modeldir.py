"""A node's model directory: the current model, swapped so that no reader ever sees half of one.

    DIR/model-<sha12>.onnx   content-addressed, written whole, then renamed
    DIR/device-<key>.json    what this node's devices are
    DIR/current.json         {"file", "sha256", "version"}; replaced by a rename, last

One agent or many may write (the renames are atomic, the names are content); readers need no lock. It survives agent and coordinator.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from gemmcast.device import Device
from gemmcast.errors import ModelFileError

CURRENT = "current.json"
KEEP, GRACE_S = 3, 10.0
# models kept, and how long each stays at least: a reader may be about to open the one before, another writer about to name its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What current.json says."""

    file: str
    sha256: str
    version: str


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Readers see the old bytes or the new ones; a crash leaves the old ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:  # Ctrl-C too: no temporary file stays behind; raised again
        Path(name).unlink(missing_ok=True)
        raise


def put_model(directory: Path, model: bytes, version: str) -> Current:
    """Make `model` the current one of this node."""
    digest = sha256(model)
    current = Current(file=f"model-{digest[:12]}.onnx", sha256=digest, version=version)
    target = directory / current.file
    if not target.exists() or sha256(target.read_bytes()) != digest:
        write_atomically(target, model)
    os.utime(target)
    write_atomically(directory / CURRENT, json.dumps(asdict(current)).encode())
    models = sorted(directory.glob("model-*.onnx"), key=_mtime, reverse=True)
    for old in models[KEEP:]:
        if _mtime(old) < _mtime(target) - GRACE_S:
            old.unlink(missing_ok=True)
    return current


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def put_device(directory: Path, device: Device) -> None:
    write_atomically(directory / f"device-{sha256(device.uuid.encode())[:12]}.json", device.to_json().encode())


def devices(directory: Path) -> list[Device]:
    """The devices of this node, by name and UUID."""
    found = [Device.from_json(path.read_text()) for path in directory.glob("device-*.json")]
    return sorted(found, key=lambda device: (device.name, device.uuid))


def read_current(directory: Path) -> Current:
    """Raises ModelFileError when there is no model here, or something else."""
    try:
        values = json.loads((directory / CURRENT).read_text())
        return Current(file=values["file"], sha256=values["sha256"], version=values["version"])
    except FileNotFoundError:
        raise ModelFileError("model directory", str(directory), f"has no {CURRENT}", "run an agent that pushes here, or name an .onnx file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(CURRENT, str(directory), f"not ours ({error!r})", "delete the directory; the next push writes it anew") from None


def read_model(directory: Path, current: Current) -> bytes:
    """Raises FileNotFoundError when a newer model has displaced it: read `current` again."""
    data = (directory / current.file).read_bytes()
    if sha256(data) != current.sha256:
        raise ModelFileError(
            "model", str(directory / current.file), "does not match its SHA-256", "delete the directory; the next push writes it anew"
        )
    return data
