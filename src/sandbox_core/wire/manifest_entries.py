"""Maps a function over a manifest's entries, including those in directories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, Dir

_PathT = TypeVar("_PathT", bound=str | Path)


def change_entries(manifest: Manifest, change: Callable[[BaseEntry], BaseEntry]) -> Manifest:
    """Return `manifest` with `change` applied to its entries, or itself if nothing changed."""
    entries = _changed(manifest.entries, change)
    return manifest if entries is None else manifest.model_copy(update={"entries": entries})


def change_entry(entry: BaseEntry, change: Callable[[BaseEntry], BaseEntry]) -> BaseEntry:
    """Return `entry` with `change` applied to it, or to a directory's children."""
    if isinstance(entry, Dir):
        children = _changed(entry.children, change)
        return entry if children is None else entry.model_copy(update={"children": children})
    return change(entry)


def _changed(
    entries: Mapping[_PathT, BaseEntry], change: Callable[[BaseEntry], BaseEntry]
) -> dict[_PathT, BaseEntry] | None:
    changed = {path: change_entry(entry, change) for path, entry in entries.items()}
    same = all(changed[path] is entry for path, entry in entries.items())
    return None if same else changed
