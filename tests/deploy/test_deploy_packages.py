"""The check of a node's packages against the locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.packages import Difference, differences, installed_version, main, read_lock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text("# a comment\n\nnumpy==2.4.6\nray==2.60.0\n")
    return path


def test_versions_as_locked_are_no_difference(lock: Path) -> None:
    installed = {"numpy": "2.4.6", "ray": "2.60.0"}
    assert differences([lock], installed.get) == (2, [])


def test_another_version_and_a_missing_package_are_named(lock: Path) -> None:
    _, differing = differences([lock], {"numpy": "2.4.5"}.get)
    assert differing == [
        Difference("numpy", "==2.4.6", "2.4.5"),
        Difference("ray", "==2.60.0", None),
    ]
    assert str(differing[0]) == "numpy is 2.4.5, not 2.4.6"
    assert str(differing[1]) == "ray is missing, not 2.60.0"


def test_a_line_for_another_machine_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "requirements.lock"
    path.write_text("numpy==2.4.6\npywin32==312 ; sys_platform == 'win32'\n")
    assert [one.name for one in read_lock(path)] == ["numpy"]


def test_the_project_has_one_version_of_a_package_for_each_machine() -> None:
    names = [one.name for one in read_lock(ROOT / "requirements.lock")]
    assert "ray" in names
    assert len(names) == len(set(names))


def test_what_is_installed_is_found() -> None:
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("no-such-package-anywhere") is None


class TestCommand:
    def test_differences_are_one_line_and_exit_code_1(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "requirements.lock"
        path.write_text("".join(f"no-such-package-{i}==1.0\n" for i in range(7)))
        assert main([str(path)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("error: 7 packages differ: no-such-package-0 is missing, not 1.0;")
        assert error.endswith("and 2 more; run `make env` on this node\n")

    def test_packages_as_locked_are_one_line_and_exit_code_0(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "requirements.lock"
        path.write_text(f"pytest=={pytest.__version__}\n")
        assert main([str(path)]) == 0
        assert capsys.readouterr().out == "packages as locked: 1\n"

    @pytest.mark.parametrize("text", [None, "numpy 2.4.6\n"])
    def test_a_lock_that_is_none_is_exit_code_2(
        self, text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "requirements.lock"
        if text is not None:
            path.write_text(text)
        assert main([str(path)]) == 2
        assert capsys.readouterr().err.startswith("error: lock = ")

    def test_no_lock_is_exit_code_2(self) -> None:
        assert main([]) == 2
