"""The node's model directory: whole or not at all, whoever writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gemmcast import modeldir
from gemmcast.device import Device
from gemmcast.errors import InputError, ModelFileError
from gemmcast.modeldir import CURRENT, GRACE_S, KEEP

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from gemmcast import modeldir
who, directory, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
for i in range(rounds):
    modeldir.put_model(directory, f"{who} {i}".encode() * 20_000, f"{who} {i}")
    modeldir.put_model(directory, b"the same from both" * 1000, f"{who} both")
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_put_makes_a_model_the_current_one(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "yet"
    current = modeldir.put_model(directory, b"a model", "7")
    assert current == modeldir.read_current(directory)
    assert (current.version, current.sha256) == ("7", modeldir.sha256(b"a model"))
    assert modeldir.read_model(directory, current) == b"a model"
    assert names(directory) == [CURRENT, f"model-{current.sha256[:12]}.onnx"]
    assert (directory / CURRENT).stat().st_mode & 0o777 == 0o644


def test_a_model_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    first = modeldir.put_model(tmp_path, b"a model", "7")
    inode = (tmp_path / first.file).stat().st_ino
    assert modeldir.put_model(tmp_path, b"a model", "8") == replace(first, version="8")
    assert (tmp_path / first.file).stat().st_ino == inode


def test_a_damaged_model_is_refused_and_the_next_push_mends_it(tmp_path: Path) -> None:
    current = modeldir.put_model(tmp_path, b"a model", "7")
    (tmp_path / current.file).write_bytes(b"a mod")
    with pytest.raises(ModelFileError, match="does not match its SHA-256; delete the directory"):
        modeldir.read_model(tmp_path, current)
    modeldir.put_model(tmp_path, b"a model", "7")
    assert modeldir.read_model(tmp_path, current) == b"a model"


def test_a_model_that_was_displaced_says_so(tmp_path: Path) -> None:
    current = modeldir.put_model(tmp_path, b"a model", "7")
    (tmp_path / current.file).unlink()
    with pytest.raises(FileNotFoundError):
        modeldir.read_model(tmp_path, current)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"file": 5, "sha256": "y", "version": "1"}',
        '{"file": "x", "sha256": "y"}',
        "\udcff",
    ],
)
def test_a_current_that_gemmcast_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CURRENT).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(
        ModelFileError,
        match=rf"current.json = '{tmp_path}': not written by gemmcast \(.*\); "
        r"delete the directory; the next push writes it anew",
    ):
        modeldir.read_current(tmp_path)


@pytest.mark.parametrize("name", ["../model", "/etc/hostname", "..", "", "a\x00b", "link"])
def test_a_current_that_leads_out_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    node = tmp_path / "node"
    current = modeldir.put_model(node, b"a model", "7")
    (tmp_path / "model").write_bytes(b"a model")
    (node / "link").symlink_to(tmp_path / "model")
    values = {"file": name, "sha256": current.sha256, "version": "7"}
    (node / CURRENT).write_text(json.dumps(values))
    with pytest.raises(ModelFileError, match="leads out of the directory; delete the directory"):
        modeldir.read_model(node, modeldir.read_current(node))


def test_a_directory_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError,
        match=r"has no current.json; run an agent that pushes here, or name an .onnx file",
    ):
        modeldir.read_current(tmp_path)


def test_the_newest_models_stay_and_older_ones_go_after_their_grace(tmp_path: Path) -> None:
    put = [modeldir.put_model(tmp_path, f"model {i}".encode(), str(i)) for i in range(6)]
    assert len(names(tmp_path)) == 6 + 1, "all are younger than the grace"
    for age, current in enumerate(reversed(put), 1):
        os.utime(tmp_path / current.file, (time.time() - age * 2 * GRACE_S,) * 2)
    last = modeldir.put_model(tmp_path, b"model 6", "6")
    assert names(tmp_path) == sorted(
        [CURRENT, last.file, *(current.file for current in put[-KEEP + 1 :])]
    )
    again = modeldir.put_model(tmp_path, b"model 4", "4 again")
    assert modeldir.read_model(tmp_path, again) == b"model 4"


def test_files_of_somebody_else_are_never_deleted(tmp_path: Path) -> None:
    for i in range(KEEP + 2):
        path = tmp_path / f"model-of-mine-{i}.onnx"
        path.touch()
        os.utime(path, (0, 0))
    modeldir.put_model(tmp_path, b"a model", "7")
    assert len(list(tmp_path.glob("model-of-mine-*"))) == KEEP + 2


def test_a_write_that_fails_leaves_the_old_bytes_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = modeldir.put_model(tmp_path, b"a model", "7")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        modeldir.put_model(tmp_path, b"another", "8")
    assert Path(failed.value.filename).parent == tmp_path
    assert modeldir.read_current(tmp_path) == current
    assert names(tmp_path) == [CURRENT, current.file]


def test_two_writers_at_once_never_show_half_a_model(tmp_path: Path) -> None:
    """Each reading is of one version, whole, whatever two processes push meanwhile."""
    modeldir.put_model(tmp_path, b"first", "first")
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen(
            [*command, who, str(tmp_path), "60"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for who in ("one", "two")
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        current = modeldir.read_current(tmp_path)
        data = modeldir.read_model(tmp_path, current)
        assert current.version == "first" or data.startswith(
            (current.version.encode(), b"the same from both")
        )
        seen.add(current.version)
    for writer in writers:
        assert (writer.communicate()[1], writer.returncode) == ("", 0)
    assert len(seen) > 10
    last = modeldir.read_current(tmp_path)
    assert last.version in ("one both", "two both")
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_devices_are_kept_by_uuid(tmp_path: Path, gpu: Device, cpu: Device) -> None:
    twin = replace(gpu, uuid="GPU-twin")
    for device in (twin, cpu, gpu, replace(gpu, driver="581.0")):
        modeldir.put_device(tmp_path, device)
    assert modeldir.devices(tmp_path) == [cpu, replace(gpu, driver="581.0"), twin]
    damaged = next(tmp_path.glob("device-*.json"))
    damaged.write_text(json.dumps({"name": "x"}))
    with pytest.raises(InputError, match="not a device description"):
        modeldir.devices(tmp_path)
