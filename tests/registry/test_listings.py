"""One command lists a folder, regardless of its content and size."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from agents.sandbox.files import EntryKind

from sandbox_core.providers.listings import list_command, listed_entries

ODD = ("a\nb", " x", "-l", ".hidden", "..two", "it's", "*", "caf\udce9")


@pytest.mark.parametrize("shell", [["sh"], ["busybox", "sh"]], ids=["sh", "busybox"])
class TestListing:
    def test_an_empty_folder_has_no_entries(self, shell: list[str], tmp_path: Path) -> None:
        assert [] == listed_entries(str(tmp_path), _output(shell, tmp_path))

    def test_names_and_kinds_of_any_sort(self, shell: list[str], tmp_path: Path) -> None:
        for name in ODD:
            (tmp_path / name).write_bytes(b"four")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("nowhere")
        os.mkfifo(tmp_path / "pipe")

        listed = {
            entry.path: entry for entry in listed_entries(str(tmp_path), _output(shell, tmp_path))
        }

        assert {f"{tmp_path}/{name}" for name in (*ODD, "folder", "link", "pipe")} == set(listed)
        assert 4 == listed[f"{tmp_path}/a\nb"].size
        assert [EntryKind.DIRECTORY, EntryKind.SYMLINK, EntryKind.OTHER] == [
            listed[f"{tmp_path}/{name}"].kind for name in ("folder", "link", "pipe")
        ]

    def test_more_names_than_one_command_takes(self, shell: list[str], tmp_path: Path) -> None:
        names = {f"{number:04}-{'n' * 245}" for number in range(1000)}
        for name in names:
            (tmp_path / name).touch()
        # As much as a process may be given here, of which a quarter is for arguments.
        limit = ["prlimit", "--stack=524288"]

        listed = listed_entries(str(tmp_path), _output([*limit, *shell], tmp_path))

        assert {f"{tmp_path}/{name}" for name in names} == {entry.path for entry in listed}

    def test_a_missing_folder_is_an_error(self, shell: list[str], tmp_path: Path) -> None:
        with pytest.raises(subprocess.CalledProcessError):
            _output(shell, tmp_path / "missing")


def _output(shell: list[str], folder: Path) -> bytes:
    command = [*shell, *list_command(str(folder))[1:]]
    return subprocess.run(command, capture_output=True, check=True).stdout
