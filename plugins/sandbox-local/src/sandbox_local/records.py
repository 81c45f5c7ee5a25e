"""Labels of directories: a directory has none, so that each has a record in a private folder.

A record is there before its directory is, and goes after it. Only the directories that are made for
sandboxes have one; those of the user's own are never labelled, as they are never deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from sandbox_core.providers import LabelledSandbox, private_folder

PREFIX: Final = "sandbox-local-"
"""As the SDK's client names the directories that it makes."""

_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW

_MAKING_S: Final = 60.0
"""How long a record waits for its directory, which may be about to be made."""


def is_made_for_sandbox(root: Path) -> bool:
    """Return whether the directory is not the user's own, and may be deleted."""
    return root.name.startswith(PREFIX) and root.parent == Path(tempfile.gettempdir())


def make(labels: Mapping[str, str]) -> Path:
    """Make a directory that has labels from the moment it exists."""
    root = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(8)}"
    with _alone():
        _write(root, labels, datetime.now(timezone.utc))
    root.mkdir(mode=0o700)
    return root


def prepare(root: Path, labels: Mapping[str, str]) -> None:
    """Have the directory labelled if it does not exist, because it is made now."""
    if labels and is_made_for_sandbox(root):
        with _alone():
            if not root.is_dir():
                _write(root, labels, datetime.now(timezone.utc))


def change(root: Path, labels: Mapping[str, str]) -> None:
    """Set labels of a directory that exists, beside those that it has."""
    if is_made_for_sandbox(root):
        with _alone():
            if root.is_dir():
                known = _read(root) or LabelledSandbox(sandbox_id=str(root), labels={})
                _write(root, {**known.labels, **labels}, known.created)


def find(labels: Mapping[str, str]) -> list[LabelledSandbox]:
    """Return the directories with all of these labels, and forget those that are gone."""
    found = []
    for record in sorted(_folder().glob(f"{PREFIX}*.json")):
        root = Path(tempfile.gettempdir()) / record.stem
        if not root.is_dir():
            forget(root, unless_within_s=_MAKING_S)
            continue
        known = _read(root)
        if known is not None and labels.items() <= known.labels.items():
            found.append(known)
    return found


def forget(root: Path, *, unless_within_s: float = 0.0) -> None:
    """Remove the record of a directory that is gone, unless it was made so short a time ago."""
    record = _record(root)
    if not record.exists():
        return
    with _alone(), suppress(FileNotFoundError):
        old = time.time() - record.stat().st_mtime >= unless_within_s
        if old and not root.is_dir():
            record.unlink()


def _folder() -> Path:
    return private_folder("labels")


def _record(root: Path) -> Path:
    return _folder() / f"{root.name}.json"


@contextmanager
def _alone() -> Iterator[None]:
    """Have no other process change a record meanwhile."""
    lock = os.open(_folder() / "lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(root: Path, labels: Mapping[str, str], created: datetime | None) -> None:
    # A record is whole whenever it is seen, and whenever this is killed.
    new = _folder() / "new"
    content = {"labels": dict(labels), "created": created and created.isoformat()}
    # Another one that was killed may have left one.
    written = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
    with os.fdopen(written, "w", encoding="utf-8") as file:
        json.dump(content, file)
    new.replace(_record(root))


def _read(root: Path) -> LabelledSandbox | None:
    try:
        content = json.loads(_record(root).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # It may be empty if the host has lost power.
    return LabelledSandbox(
        sandbox_id=str(root),
        labels=content["labels"],
        created=content["created"] and datetime.fromisoformat(content["created"]),
    )
