"""What an agent's actor sets up before its child starts."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from agent import actor


@pytest.mark.parametrize(("given", "shown"), [(["GPU-b"], "GPU-b"), ([], "GPU-a,GPU-b")])
def test_the_child_sees_the_gpu_that_ray_gave_its_agent(
    given: list[str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES is set, Ray leaves all of a node visible:
    every agent would measure the first one."""
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": given})
    monkeypatch.setattr(actor.ray, "get_runtime_context", lambda: context)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    actor._show_own_gpu_alone()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
