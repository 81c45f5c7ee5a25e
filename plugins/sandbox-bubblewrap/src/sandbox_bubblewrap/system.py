"""What a sandbox sees of the host: its programs and libraries, and little of ``/etc``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sandbox_bubblewrap.bwrap import BubblewrapUnusable

READ_ONLY_VARIABLE: Final = "SANDBOX_BUBBLEWRAP_READ_ONLY"
"""The environment variable with more paths of the host, separated by colons."""

USER_ID: Final = 1000
"""Of commands, as they see it."""

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
"""Names below ``/etc`` that programs need and that hold no secret."""


def files(root: str) -> dict[str, bytes]:
    """Return the files of ``/etc`` that are not the host's, for a workspace at `root`."""
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
    """Yield bwrap's arguments that show the system, read-only."""
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
            # A link into another folder would lead nowhere; what it leads to takes its place.
            yield from ("--ro-bind", str(path.resolve()), str(path))
    store = Path("/nix/store")
    if store.is_dir():
        yield from ("--ro-bind", str(store), str(store))
    for path in _python_folders():
        yield from ("--ro-bind", str(path), str(path))


def more_mounts() -> Iterator[str]:
    """Yield bwrap's arguments that show what the worker's environment names, read-only.

    Raises:
        BubblewrapUnusable: It names what is not there.
    """
    for text in filter(None, os.environ.get(READ_ONLY_VARIABLE, "").split(":")):
        path = Path(text)
        if not path.is_absolute() or not path.exists() or path == Path("/"):
            raise BubblewrapUnusable(
                f"{READ_ONLY_VARIABLE}: {text!r} is not an absolute path that exists below /"
            )
        yield from ("--ro-bind", text, text)


def python() -> str:
    """Return the Python that runs process 1: the worker's, or the system's.

    Raises:
        BubblewrapUnusable: There is none that a sandbox can run.
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
