"""Manifest entries that are copied from the worker's disk, and where they may come from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agents.sandbox.entries import BaseEntry, Dir, LocalDir, LocalFile

from sandbox_core.errors import InvalidRequest


def check_local_sources(entries: Mapping[str | Path, BaseEntry], allowed: Sequence[Path]) -> None:
    """Return if every file that `entries` take from this host lies in an allowed folder.

    Raises:
        InvalidRequest: One does not, or is named by a relative path, which would depend on where
            the worker was started; or it is a FIFO or a device, which blocks whoever opens it.
    """
    roots = [os.path.realpath(root) for root in allowed]
    for path, source in _sources(entries):
        real = os.path.realpath(source)
        inside = any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots)
        if not source.is_absolute() or not inside:
            raise InvalidRequest(
                f"manifest entry {str(path)!r} takes {str(source)!r} from the worker's disk. This "
                f"worker allows {', '.join(map(str, allowed)) or 'no folder'}: name an absolute "
                f"path in a directory of SandboxPlugin(local_sources=[...])."
            )
        found = Path(real)
        if found.exists() and not (found.is_file() or found.is_dir()):
            raise InvalidRequest(
                f"manifest entry {str(path)!r} takes {str(source)!r} from the worker's disk, which "
                f"is neither a regular file nor a directory."
            )


def _sources(entries: Mapping[str | Path, BaseEntry]) -> Iterator[tuple[str | Path, Path]]:
    for path, entry in entries.items():
        if isinstance(entry, LocalFile | LocalDir) and entry.src is not None:
            yield path, entry.src
        elif isinstance(entry, Dir):
            yield from _sources(entry.children)
