"""Secrets that are planted in the environment, in files and in places stand in nothing written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.fleet import doors
from coordinator.samples.place import store_place
from gemmcast.errors import InputError, UnavailableError
from tests.conftest import Ended

Coordinator = Callable[..., Ended]
SECRETS = {
    "RAY_AUTH_TOKEN": "planted-ray-token",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SESSION_TOKEN": "planted-aws-session",
    "AZURE_STORAGE_ACCOUNT_KEY": "planted-azure-key",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "GEMMCAST_KEY_PASSPHRASE": "planted-passphrase",
}
PASSWORD = "planted-in-the-uri"
PLAN = """
name = "secrets"
[[sweep]]
family = "blas"
shapes = { sample = 4, max = 64 }
"""
TABLE = """m,n,k,dtype,family,device,device_kind,runtime_us
64,64,64,fp16,cublas,NVIDIA H100,cuda,9
"""


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)


def written(folder: Path, *texts: str) -> Iterator[str]:
    """All that a command has said, and every file that it has left."""
    yield from texts
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes().decode(errors="replace")


def test_commands_write_no_secret(
    coordinator: Coordinator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    workspace = tmp_path / "workspace"
    plan, table = tmp_path / "plan.toml", tmp_path / "table.csv"
    plan.write_text(PLAN)
    table.write_text(TABLE)
    place = ("--workspace", workspace)
    commands = (
        ("import", table, *place),
        ("status", *place),
        ("status", *place, "--json"),
        ("export", tmp_path / "out.parquet", *place),
        ("report", *place),
        ("plan", plan, "--verbose"),
        ("train", *place),
    )
    ended = [coordinator(*words) for words in commands]
    assert [one.returncode for one in ended[:4]] == [0, 0, 0, 0], ended
    said = [one.stdout + one.stderr for one in ended]
    for text in written(tmp_path, *said, caplog.text):
        for secret in SECRETS.values():
            assert secret not in text


def test_a_password_in_a_places_name_is_not_shown(
    coordinator: Coordinator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = store_place(f"s3://user:{PASSWORD}@bucket/samples")
    assert PASSWORD not in place.shown
    registry = f"http://user:{PASSWORD}@127.0.0.1:1"
    store = f"s3://user:{PASSWORD}@bucket/samples"
    for option, uri in (("--store", store), ("--registry", registry)):
        ended = coordinator("status", "--workspace", tmp_path / "workspace", option, uri)
        assert PASSWORD not in ended.stdout + ended.stderr
    assert PASSWORD not in caplog.text


def test_a_refusal_of_a_cluster_names_no_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(doors, "is_open", lambda _: True)
    with pytest.raises(InputError) as refused:
        doors.refuse_open("auto", "127.0.0.1:1", nodes=2, without_token=False)
    doors.refuse_open("auto", "127.0.0.1:1", nodes=2, without_token=True)
    assert SECRETS["RAY_AUTH_TOKEN"] not in str(refused.value) + caplog.text


def test_an_error_of_an_object_store_hides_a_password() -> None:
    from coordinator.samples.place import translated

    with pytest.raises(UnavailableError) as failed, translated("s3://bucket"):
        raise OSError(f"can't reach https://user:{PASSWORD}@host/bucket")
    assert PASSWORD not in str(failed.value)
