"""Defines what a sandbox sees of the host: programs, libraries, and little of ``/etc``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sandbox_bubblewrap.bwrap import BubblewrapUnusable

READ_ONLY_VARIABLE: Final = "SANDBOX_BUBBLEWRAP_READ_ONLY"
"""The environment variable with additional host paths, separated by colons."""

USER_ID: Final = 1000
"""The user id of commands, as seen in the sandbox."""

USER_NAME: Final = "sandbox"

WORKSPACE: Final = "/workspace"

_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

_CONFIGURATION: Final = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "default/locale",
    "fonts",
    "gai.conf",
    "host.conf",
    "hosts",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "login.defs",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki",
    "profile.d",
    "protocols",
    "python3",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""Names below ``/etc`` that programs need and that contain no secrets."""


def files(root: str) -> dict[str, bytes]:
    """Return the sandbox's own files of ``/etc``, for a workspace at `root`."""
    users = (
        "root:x:0:0:root:/:/usr/sbin/nologin",
        f"{USER_NAME}:x:{USER_ID}:{USER_ID}:{USER_NAME}:{root}:/bin/sh",
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin",
    )
    groups = ("root:x:0:", f"{USER_NAME}:x:{USER_ID}:", "nogroup:x:65534:")
    return {
        "/etc/passwd": "".join(f"{line}\n" for line in users).encode(),
        "/etc/group": "".join(f"{line}\n" for line in groups).encode(),
    }


def mounts(*, network: bool) -> Iterator[str]:
    """Yield bwrap's arguments that mount the system read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _MERGED:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for name in (*_CONFIGURATION, *(("resolv.conf",) if network else ())):
        path = Path("/etc", name)
        if path.exists():
            # The target of a link may not be mounted, so it is mounted in place of the link.
            yield from ("--ro-bind", str(path.resolve()), str(path))
    store = Path("/nix/store")
    if store.is_dir():
        yield from ("--ro-bind", str(store), str(store))
    for path in _python_folders():
        yield from ("--ro-bind", str(path), str(path))


def more_mounts() -> Iterator[str]:
    """Yield bwrap's arguments that mount the paths named by the worker's environment read-only.

    Raises:
        BubblewrapUnusable: One of them does not exist.
    """
    for text in filter(None, os.environ.get(READ_ONLY_VARIABLE, "").split(":")):
        path = Path(text)
        if not path.is_absolute() or not path.exists() or path == Path("/"):
            raise BubblewrapUnusable(
                f"{READ_ONLY_VARIABLE}: {text!r} is not an absolute path that exists below /"
            )
        yield from ("--ro-bind", text, text)


def python() -> str:
    """Return the Python that runs process 1: the worker's, or else the system's.

    Raises:
        BubblewrapUnusable: A sandbox can run neither.
    """
    own = os.path.realpath(sys.executable)
    if _is_shown(own):
        return own
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK):
            return os.path.realpath(path)
    return own


def _is_shown(path: str) -> bool:
    return path.startswith(("/usr/", "/nix/store/"))


def _python_folders() -> list[Path]:
    chosen = python()
    if _is_shown(chosen):
        return []
    return [Path(sys.base_prefix).resolve()]
