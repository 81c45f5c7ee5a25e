"""The helper's binaries in this distribution, one per processor architecture."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_why_off: ContextVar[str | None] = ContextVar("sandbox_core_helper_off", default=None)


@dataclass(frozen=True, kw_only=True)
class Binary:
    """One static program for Linux."""

    content: bytes

    @property
    def name(self) -> str:
        """Its file name in every sandbox: a hash of its content."""
        return _digest(self.content)


@contextmanager
def helper_turned_off(why: str | None) -> Iterator[None]:
    """Turn the helper off for what is started within the context.

    Args:
        why: The setting that turns it off; None leaves it on.
    """
    token = _why_off.set(why)
    try:
        yield
    finally:
        _why_off.reset(token)


def why_off() -> str | None:
    """Return which setting of this worker turns the helper off; None if none does."""
    return _why_off.get()


def binary_for(system: str, machine: str) -> Binary | None:
    """Return the helper for a system and a processor as `uname` calls them; None if there is none.

    Args:
        system: For example "Linux"; empty (unknown) is treated as Linux.
        machine: For example "x86_64" or "aarch64"; empty means this worker's own.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine) or platform.machine()
    return _read(machine) if system in ("Linux", "") else None


def host_binary() -> Binary | None:
    """Return the helper for the worker's host; None if there is none."""
    return binary_for(platform.system(), platform.machine())


@cache
def _read(machine: str) -> Binary | None:
    found = files(__package__).joinpath("helper").joinpath(f"sandbox-helper-{machine}-linux")
    return Binary(content=found.read_bytes()) if found.is_file() else None


@cache
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
