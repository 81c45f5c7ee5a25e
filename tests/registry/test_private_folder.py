"""The folder in which a user's workers share files, even if other users got there first."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from sandbox_core.providers.private_folder import private_folder
from sandbox_core.worker.own_queue import is_gone, own_queue


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"sandbox-core-{os.geteuid()}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestPrivateFolder:
    def test_is_the_user_s_own(self, root: Path) -> None:
        folder = private_folder("a", "b")

        assert root / "a" / "b" == folder == private_folder("a", "b")
        assert {0o700} == {mode(path) for path in (root, root / "a", folder)}

    def test_that_others_could_read_is_closed(self, root: Path) -> None:
        """Earlier versions have made it so."""
        root.mkdir(mode=0o755)

        assert 0o700 == mode(private_folder())

    @pytest.mark.parametrize("below", [False, True], ids=["itself", "a folder in it"])
    def test_is_no_link(self, root: Path, below: bool) -> None:
        elsewhere = root.parent / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        link = private_folder() / "a" if below else root
        link.symlink_to(elsewhere)

        with pytest.raises(PermissionError, match=r"is a link: .* give the worker its own TMPDIR"):
            private_folder("a")

        assert [] == list(elsewhere.iterdir())

    def test_is_no_file(self, root: Path) -> None:
        root.write_text("")

        with pytest.raises(PermissionError, match="is not a folder"):
            private_folder("a")

    def test_is_not_one_in_which_others_write(self, root: Path) -> None:
        root.mkdir()
        root.chmod(0o777)

        with pytest.raises(PermissionError, match="can be written by other users"):
            private_folder("a")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_is_not_another_user_s(self, root: Path) -> None:
        root.mkdir(mode=0o700)
        os.chown(root, 65534, 65534)

        with pytest.raises(PermissionError, match="belongs to user 65534, not to 0"):
            private_folder("a")


class TestOwnQueue:
    def test_locks_no_file_of_another_user_s_choice(self, root: Path) -> None:
        root.symlink_to(root.parent)

        with pytest.raises(PermissionError, match="is a link"), own_queue("default", "queue"):
            pass

    def test_follows_no_link_to_its_lock(self, root: Path) -> None:
        with own_queue("default", "queue") as name:
            pass
        (lock,) = root.rglob("0.lock")
        lock.unlink()
        lock.symlink_to(root.parent / "elsewhere")

        with pytest.raises(OSError, match="symbolic links"), own_queue("default", "queue"):
            pass

        assert not (root.parent / "elsewhere").exists()
        with pytest.raises(OSError, match="symbolic links"):
            is_gone("default", name)
