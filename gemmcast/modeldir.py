"""A node's model directory: the current model, replaced so that a reader never sees half of one.

    DIR/model-<sha12>.onnx   named by its content, written whole, then renamed
    DIR/device-<key>.json    one device of this node
    DIR/current.json         {"file", "sha256", "version", "signature"}; replaced by a rename, last

Several agents may write at once, because renames are atomic and names are content. Readers need no
lock. The directory outlives agent and coordinator. Does not know what a model is, nor how a
signature is checked: agents do that before they write here (signing/node.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gemmcast.device import Device
from gemmcast.errors import InputError, ModelFileError

CURRENT = "current.json"
MODELS = f"model-{'[0-9a-f]' * 12}.onnx"
"""Pattern of the models' names: no other file is ever deleted."""
KEEP = 3
"""Models that stay."""
GRACE_S = 10.0
"""How long a displaced model stays at least: a reader may be about to open it, or another writer
about to name it. [s]"""
_DELETE = "delete the directory; the next push writes it anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentModel:
    """The content of current.json."""

    file: str
    """Name of the model's file in the directory."""
    sha256: str
    """SHA-256 of that file, in hexadecimal digits."""
    version: str
    """Version of the model in the registry."""
    signature: str | None = None
    """What was signed with the model, and the signature (docs/signing.md); None: unsigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedModel:
    """A model on its way to the nodes."""

    data: bytes
    """The .onnx file."""
    card: bytes = b""
    """The card as it was published; a signature is over both."""
    signature: str | None = None
    """None: unsigned."""


def sha256(data: bytes) -> str:
    """The SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file: readers, and a crash or power cut, see the old bytes or the new ones.

    Raises:
        OSError: it can't be written; with the name of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    # BaseException: Ctrl-C, too, must leave no temporary file.
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException as error:
        # A signal, too: no half-written file stays behind.
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            # A full disk is found by `write`, which names no file.
            error.filename = str(path)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut. Windows has no such call, and needs none."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_model(
    directory: Path, model: bytes, version: str, signature: str | None = None
) -> CurrentModel:
    """Make `model` the current one of this node."""
    digest = sha256(model)
    name = f"model-{digest[:12]}.onnx"
    current = CurrentModel(file=name, sha256=digest, version=version, signature=signature)
    target = directory / current.file
    # A symbolic link is replaced: what it points at may change later.
    if target.is_symlink() or not target.exists() or sha256(target.read_bytes()) != digest:
        write_atomically(target, model)
    os.utime(target)
    write_atomically(directory / CURRENT, json.dumps(without_none(asdict(current))).encode())
    _delete_old_models(directory, newest=target)
    return current


def without_none(values: Mapping[str, object]) -> dict[str, object]:
    """What unsigned models and tables leave out, as programs did that knew no signatures."""
    return {name: value for name, value in values.items() if value is not None}


def check_writable(directory: Path) -> None:
    """Raises InputError where no model can be put; makes the directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        rule = f"no model can be written there ({error.strerror})"
        way_out = "name a node's model directory that you may write to"
        raise InputError("model directory", str(directory), rule, way_out) from None


def put_device(directory: Path, device: Device) -> None:
    """Describe one device of this node."""
    key = sha256(device.uuid.encode())[:12]
    write_atomically(directory / f"device-{key}.json", device.to_json().encode())


def devices(directory: Path) -> list[Device]:
    """The devices of this node, ordered by name and UUID."""
    described = [
        Device.from_json(path.read_text("utf-8")) for path in directory.glob("device-*.json")
    ]
    return sorted(described, key=lambda device: (device.name, device.uuid))


def read_current(directory: Path) -> CurrentModel:
    """Raises ModelFileError when the directory has no current.json, or a damaged one."""
    try:
        values = json.loads((directory / CURRENT).read_text("utf-8"))
        current = CurrentModel(
            file=values["file"],
            sha256=values["sha256"],
            version=values["version"],
            signature=values.get("signature"),
        )
        check_text(asdict(current))
        return current
    except FileNotFoundError:
        way_out = "run an agent that pushes here, or name an .onnx file"
        rule = f"has no {CURRENT}"
        raise ModelFileError("model directory", str(directory), rule, way_out) from None
    except (ValueError, KeyError, TypeError) as error:
        rule = f"not written by gemmcast ({error!r})"
        raise ModelFileError(CURRENT, str(directory), rule, _DELETE) from None


def read_model(directory: Path, current: CurrentModel) -> bytes:
    """The bytes of the model.

    Raises:
        FileNotFoundError: a newer model has displaced it; read current.json again.
        ModelFileError: the file is damaged.
    """
    path = directory / current.file
    if leads_out(directory, current.file):
        raise ModelFileError(CURRENT, current.file, "leads out of the directory", _DELETE)
    data = path.read_bytes()
    if sha256(data) != current.sha256:
        raise ModelFileError("model", str(path), "does not match its SHA-256", _DELETE)
    return data


def check_text(values: Mapping[str, object]) -> None:
    """Raise TypeError for a value that is no text; None is an absent signature."""
    for name, value in without_none(values).items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is no text")


def leads_out(directory: Path, name: str) -> bool:
    """Whether a file that somebody names lies elsewhere, by its name or by a symbolic link."""
    if not name.isprintable() or name != Path(name).name:
        return True
    return (directory / name).resolve().parent != directory.resolve()


def _delete_old_models(directory: Path, newest: Path) -> None:
    """All but the newest KEEP, unless they are younger than the grace."""
    models = sorted(directory.glob(MODELS), key=_mtime, reverse=True)
    for old in models[KEEP:]:
        if _mtime(old) < _mtime(newest) - GRACE_S:
            old.unlink(missing_ok=True)


def _mtime(path: Path) -> float:
    """0 for a file that another writer has just deleted."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
