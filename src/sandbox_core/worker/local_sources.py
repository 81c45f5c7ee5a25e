"""Restricts the folders from which manifest entries are copied from the worker's disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agents.sandbox.entries import BaseEntry, Dir, LocalDir, LocalFile

from sandbox_core.errors import InvalidRequest


def check_local_sources(entries: Mapping[str | Path, BaseEntry], allowed: Sequence[Path]) -> None:
    """Check that all files that `entries` copy from this host are in an allowed folder.

    Raises:
        InvalidRequest: A file is not, or has a relative path, which would depend on the worker's
            working directory, or is a FIFO or a device, which could block.
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
