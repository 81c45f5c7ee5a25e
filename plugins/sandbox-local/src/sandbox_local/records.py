"""Stores the labels of directories, in one record per directory in a private folder.

A record is created before its directory, and removed after it. Only directories created for
sandboxes have one. The user's own are never labelled, as they are never deleted.
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
"""The prefix of the directories that the SDK's client creates."""

_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW

_MAKING_S: Final = 60.0
"""How many seconds a record is kept without its directory, which may be just being created."""


def is_made_for_sandbox(root: Path) -> bool:
    """Return whether the directory was created for a sandbox, and may be deleted."""
    return root.name.startswith(PREFIX) and root.parent == Path(tempfile.gettempdir())


def make(labels: Mapping[str, str]) -> Path:
    """Create a directory that is labelled from the beginning."""
    root = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(8)}"
    with _alone():
        _write(root, labels, datetime.now(timezone.utc))
    root.mkdir(mode=0o700)
    return root


def prepare(root: Path, labels: Mapping[str, str]) -> None:
    """Label a directory that is about to be created; if it exists, do nothing."""
    if labels and is_made_for_sandbox(root):
        with _alone():
            if not root.is_dir():
                _write(root, labels, datetime.now(timezone.utc))


def change(root: Path, labels: Mapping[str, str]) -> None:
    """Set labels of an existing directory; the others stay."""
    if is_made_for_sandbox(root):
        with _alone():
            if root.is_dir():
                known = _read(root) or LabelledSandbox(sandbox_id=str(root), labels={})
                _write(root, {**known.labels, **labels}, known.created)


def find(labels: Mapping[str, str]) -> list[LabelledSandbox]:
    """Return the directories with all of these labels, and remove the records of lost ones."""
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
    """Remove the record of a directory that is gone, unless the record is younger than that."""
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
    """Prevent other processes from changing a record within this context."""
    lock = os.open(_folder() / "lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(root: Path, labels: Mapping[str, str], created: datetime | None) -> None:
    # Replaced atomically, so that readers see a complete record even if this is killed.
    new = _folder() / "new"
    content = {"labels": dict(labels), "created": created and created.isoformat()}
    # A process that was killed may have left one.
    written = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
    with os.fdopen(written, "w", encoding="utf-8") as file:
        json.dump(content, file)
    new.replace(_record(root))


def _read(root: Path) -> LabelledSandbox | None:
    try:
        content = json.loads(_record(root).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # It may be empty after a power failure.
    return LabelledSandbox(
        sandbox_id=str(root),
        labels=content["labels"],
        created=content["created"] and datetime.fromisoformat(content["created"]),
    )
