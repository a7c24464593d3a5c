"""The workspace: one writer at a time, and never in a place that is swept away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.holder import Holder
from coordinator.workspace import JOB_VARIABLE, Workspace
from gemmcast.errors import InputError, WorkspaceError

HOLDER = """
import sys
from pathlib import Path
from coordinator.holder import Holder
from coordinator.workspace import JOB_VARIABLE, Workspace
with Workspace(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path, python_env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path/workspace."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "workspace")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=python_env
    ) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_everything_lies_beneath_it(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "workspace")
    for path in (place.samples, place.registry, place.node, place.nodes, place.plan, place.report):
        assert path.parent == tmp_path / "workspace"
    assert not place.path.exists()  # naming it creates nothing


def test_a_relative_path_is_fine_outside_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert Workspace(Path("workspace")).path == tmp_path / "workspace"


def test_a_relative_path_inside_a_ray_job_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    with pytest.raises(
        InputError,
        match="--workspace = 'workspace': a relative path inside a Ray job .*; "
        "give an absolute path",
    ):
        Workspace(Path("workspace"))
    assert Workspace(tmp_path / "workspace").path == tmp_path / "workspace"


def test_a_place_without_samples_is_refused_where_some_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no samples; run a plan there first"):
        Workspace(tmp_path / "workspace").must_exist()


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "workspace")
    with place.locked():
        rule = f"is in use by process {os.getpid()} on {socket.gethostname()}"
        ways_out = "wait for it, stop it, or take another --workspace"
        with pytest.raises(WorkspaceError, match=f"{rule}: {ways_out}"), place.locked():
            pass
    with place.locked():
        pass


def test_another_process_that_holds_it_is_named(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(WorkspaceError, match=f"in use by process {holder.pid}"),
        Workspace(tmp_path / "workspace").locked(),
    ):
        pass


def test_a_holder_that_is_killed_lets_go(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with Workspace(tmp_path / "workspace").locked():
        note = (tmp_path / "workspace" / "holder").read_text()
        assert Holder.from_json(note) == Holder.here()


def test_a_note_that_is_left_names_no_other_process(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    place, note = Workspace(tmp_path / "workspace"), tmp_path / "workspace" / "holder"
    named = Holder.from_json(note.read_text())
    assert named is not None
    assert named.pid == holder.pid
    assert place.is_held()
    # Its number has come again, for a process that writes nowhere.
    note.write_text(replace(named, started=named.started - 1).to_json())
    assert not place.is_held()
    # A note of an earlier version says no start.
    note.write_text(replace(named, started=0).to_json())
    assert place.is_held()


def test_a_holder_that_ended_holds_nothing_though_nobody_waits_for_it(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert not Workspace(tmp_path / "workspace").is_held()


def test_a_command_on_a_held_workspace_ends_with_exit_code_2(
    tmp_path: Path, holder: subprocess.Popen[str], python_env: dict[str, str]
) -> None:
    (tmp_path / "workspace" / "samples").mkdir()
    command = [
        sys.executable,
        "-m",
        "coordinator",
        "train",
        "--workspace",
        str(tmp_path / "workspace"),
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=python_env, cwd=tmp_path, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"in use by process {holder.pid}" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(
                WorkspaceError, match="can't be made .*name a directory that can be written"
            ),
            Workspace(path).locked(),
        ):
            pass
