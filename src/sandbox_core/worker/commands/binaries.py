"""The helper's binaries in this distribution, one per processor architecture."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SWITCH = "SANDBOX_CORE_HELPER"
"""The environment variable of a worker that turns the helper off."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """One static program for Linux."""

    content: bytes

    @property
    def name(self) -> str:
        """Its file name in every sandbox: a hash of its content."""
        return _digest(self.content)


def switched_off() -> bool:
    """Return whether the helper is turned off (``SANDBOX_CORE_HELPER=off``)."""
    return os.environ.get(SWITCH, "").lower() == "off"


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
