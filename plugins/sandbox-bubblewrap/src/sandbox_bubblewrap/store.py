"""Stores the sandboxes of this host and user: a private folder each, with workspace and labels.

The store is a folder that only its user can write to. A sandbox is a folder in it, which is renamed
when it is complete, and renamed again before it is removed::

    bwrap-1879050000-5f0c2e9a7b31d4c8/   its id; the number is the user that its commands run as
        record.json    labels, and the time of its creation
        workspace/     mounted as the sandbox's workspace
        tmp/           mounted as its /tmp; the sandbox sees none of the other files
        socket         of its process 1, while it is running
        lock           held while it is started or removed
        log            the output of bwrap and process 1

A worker that is root gives each sandbox its own user, which owns nothing else on the host.
Otherwise sandboxes have the worker's user, which is 0 in the id.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from sandbox_bubblewrap.models import SANDBOX_ID
from sandbox_core.providers import LabelledSandbox

VARIABLE: Final = "SANDBOX_BUBBLEWRAP_HOME"
"""The environment variable with the folder of the store."""

_ROOTS_HOME: Final = Path("/var/lib/sandbox-bubblewrap")

_ID: Final = re.compile(SANDBOX_ID)

_USER_IDS: Final = (range(0x70000000, 0x7FFE0000), range(62000, 65000))
"""The user ids of root's sandboxes: a range that systemd leaves free or, in a user namespace with
65,536 users (such as a rootless container), some of the last ones."""

_LEFT_OVER_S: Final = 600.0


class StoreUnsafe(Exception):
    """The store's folder is accessible to other users, or cannot be created."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """One sandbox of a store."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def user_id(self) -> int | None:
        """The user id of its commands; None for the worker's."""
        return _user_of(self.id) or None

    @property
    def workspace(self) -> Path:
        return self.path / "workspace"

    @property
    def tmp(self) -> Path:
        return self.path / "tmp"

    @property
    def log(self) -> Path:
        return self.path / "log"

    def exists(self) -> bool:
        return (self.path / "record.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Prevent others from starting, labelling or removing it within this context.

        Raises:
            FileNotFoundError: It does not exist.
        """
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.exists():
                raise FileNotFoundError(f"there is no sandbox {self.id}")
            yield
        finally:
            os.close(lock)

    def labels(self) -> LabelledSandbox | None:
        """Return its labels; None if it is being removed."""
        try:
            record = json.loads((self.path / "record.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return LabelledSandbox(
            sandbox_id=self.id,
            labels=record["labels"],
            created=datetime.fromisoformat(record["created"]),
        )

    def _write(self, labels: Mapping[str, str], created: datetime) -> None:
        # Replaced atomically, so that readers see a complete record even if this is killed.
        new = self.path / "record.new"
        content = json.dumps({"labels": dict(labels), "created": created.isoformat()})
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(new)  # A full disk's error names no file.
            raise
        new.replace(self.path / "record.json")


@dataclass(frozen=True, kw_only=True)
class Store:
    """The sandboxes in one folder."""

    root: Path
    left_over_s: float = _LEFT_OVER_S
    """After how many seconds the folder of an interrupted creation or removal is removed."""

    def make(self, labels: Mapping[str, str]) -> Sandbox:
        """Create the folder of a sandbox, which has its labels from the beginning.

        Raises:
            StoreUnsafe: The store cannot be used.
            OSError: It could not be created, for example because the disk is full.
        """
        self._prepare()
        with self._alone():
            user_id = self._free_user()
            token = secrets.token_hex(8)
            new = Sandbox(path=self.root / f".new-{token}")
            new.path.mkdir(mode=0o700)
            (new.path / "lock").touch(mode=0o600)
            (new.path / "log").touch(mode=0o600)
            new.workspace.mkdir(mode=0o700)
            new._write(labels, datetime.now(timezone.utc))
            new.tmp.mkdir()
            new.tmp.chmod(0o1777)
            if user_id:
                for folder in (new.workspace, new.tmp):
                    os.chown(folder, user_id, user_id)
                # The sandbox's user must be able to traverse it.
                new.path.chmod(0o711)
            made = Sandbox(path=self.root / f"bwrap-{user_id}-{token}")
            new.path.rename(made.path)
        return made

    def get(self, sandbox_id: str) -> Sandbox | None:
        """Return the sandbox with this id; None if it does not exist.

        Raises:
            StoreUnsafe: The store cannot be used.
        """
        if not _ID.fullmatch(sandbox_id) or not self._is_there():
            return None
        sandbox = Sandbox(path=self.root / sandbox_id)
        return sandbox if sandbox.exists() else None

    def find(self, labels: Mapping[str, str]) -> list[LabelledSandbox]:
        """Return the sandboxes with all of these labels.

        Raises:
            StoreUnsafe: The store cannot be used.
        """
        if not self._is_there():
            return []
        found = []
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((".new-", ".gone-")):
                self._clean(path)
            elif _ID.fullmatch(path.name):
                known = Sandbox(path=path).labels()
                if known is not None and labels.items() <= known.labels.items():
                    found.append(known)
        return found

    def relabel(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        """Set labels of a sandbox; the others stay.

        Raises:
            FileNotFoundError: It does not exist.
        """
        sandbox = self.get(sandbox_id)
        if sandbox is None:
            raise FileNotFoundError(f"there is no sandbox {sandbox_id}")
        with sandbox.locked():
            known = sandbox.labels()
            assert known is not None
            assert known.created is not None
            sandbox._write({**known.labels, **labels}, known.created)

    def remove(self, sandbox: Sandbox) -> None:
        """Remove a sandbox that is not running. The caller holds its lock.

        Raises:
            OSError: It could not be removed completely.
        """
        gone = self.root / f".gone-{secrets.token_hex(8)}"
        sandbox.path.rename(gone)
        remove_tree(gone)

    def _prepare(self) -> None:
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                # The users of root's sandboxes must be able to traverse it, but not to list it.
                self.root.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
        except OSError as error:
            raise StoreUnsafe(
                f"the folder for sandboxes {self.root} cannot be made ({error}): name another one "
                f"in {VARIABLE}"
            ) from error
        self._is_there()
        closed = [folder for folder in self.root.parents if not folder.stat().st_mode & 0o001]
        if os.geteuid() == 0 and closed:
            raise StoreUnsafe(
                f"the folder for sandboxes {self.root} is below {closed[0]}, to which the users "
                f"of root's sandboxes have no access: name another one in {VARIABLE}"
            )

    def _is_there(self) -> bool:
        try:
            found = os.lstat(self.root)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreUnsafe(f"{self.root} ({VARIABLE}): {error}") from error
        if not stat.S_ISDIR(found.st_mode):
            problem = "is no directory"
        elif found.st_uid != os.geteuid():
            problem = f"belongs to user {found.st_uid}, not to {os.geteuid()}"
        elif found.st_mode & 0o022:
            problem = "can be written by other users"
        else:
            return True
        raise StoreUnsafe(
            f"the folder for sandboxes {self.root} {problem}: name another one in {VARIABLE}"
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = os.open(
            self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _free_user(self) -> int:
        if os.geteuid() != 0:
            return 0
        names = (path.name for path in self.root.iterdir())
        taken = {_user_of(name) for name in names if _ID.fullmatch(name)}
        usable = next((ids for ids in _USER_IDS if _is_mapped(ids)), None)
        if usable is None:
            raise StoreUnsafe(
                "the worker is root in a user namespace of less than 65,536 users, so that its "
                "sandboxes can have none of their own: run it as another user"
            )
        while (chosen := usable.start + secrets.randbelow(len(usable))) in taken:
            pass
        return chosen

    def _clean(self, path: Path) -> None:
        with suppress(OSError):
            if time.time() - path.lstat().st_ctime > self.left_over_s:
                remove_tree(path)


def default_store() -> Store:
    """Return the store named by the environment, or this user's default."""
    named = os.environ.get(VARIABLE)
    if named:
        return Store(root=Path(named).absolute())
    if os.geteuid() == 0:
        return Store(root=_ROOTS_HOME)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Store(root=Path(state) / "sandbox-bubblewrap")


def remove_tree(path: Path) -> None:
    """Remove a folder of any depth, regardless of the modes of its content.

    Raises:
        OSError: It could not be removed completely.
    """
    # Not shutil: Python's stack and this process's descriptors limit its depth.
    said = ""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        done = subprocess.run(
            [*command, "--", str(path)], capture_output=True, check=False, text=True
        )
        said = done.stderr.strip()
        if not path.exists():
            return
    raise OSError(f"{path} cannot be removed: {said}")


def _user_of(sandbox_id: str) -> int:
    return int(sandbox_id.split("-")[1])


def _is_mapped(ids: range) -> bool:
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= ids.start and ids.stop <= first + count:
            return True
    return False
