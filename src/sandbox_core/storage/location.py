"""Determines where the store is: at the configured URL, or in the default directory."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from sandbox_core.config import Configuration, variable_of
from sandbox_core.errors import StorageError

STORAGE_VARIABLE = variable_of("storage")
"""The environment variable with the URL or directory of the store."""

_CLOUD_SCHEMES = ("s3", "gs", "az")
_FORMS = (
    "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or the absolute path of a "
    "directory"
)


@dataclass(frozen=True, kw_only=True)
class Location:
    """A place for objects. `url` has no credentials and may be shown."""

    url: str
    kind: Literal["cloud", "directory", "memory"]
    path: str
    """For a directory, its absolute path; for memory, ``name/prefix``."""
    is_default: bool = False
    """Whether it was not configured, so that workers on other hosts do not share it."""
    source: str = field(default="storage ", compare=False)
    """Where it was configured; the beginning of each error about it."""


def choose_location(
    configured: str | None,
    configuration: Configuration,
    environ: Mapping[str, str] = os.environ,
) -> Location:
    """Return the location that `configured` or, if None, the configuration names, or the default.

    Raises:
        StorageError: The configured text is not the URL of a store, or contains credentials.
    """
    if configured:
        return parse_location(configured)
    if chosen := configuration.settings.storage:
        return parse_location(chosen, source=f"{configuration.named('storage')}=")
    try:
        state = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError as error:
        raise StorageError(
            f"no storage is configured, and this user has no home directory for the default. Set "
            f"{STORAGE_VARIABLE}: {_FORMS}."
        ) from error
    return _directory(state / "sandbox-core" / "storage", is_default=True)


def parse_location(text: str, *, source: str = "storage ") -> Location:
    """Return the location that a URL or the absolute path of a directory names.

    Raises:
        StorageError: The text is neither, or contains credentials.
    """
    location = _parsed(text, source)
    return replace(location, source=source)


def _parsed(text: str, source: str) -> Location:
    if "://" not in text:
        try:
            directory = Path(text).expanduser()
        except RuntimeError as error:
            user = Path(text).parts[0]
            raise StorageError(
                f"{source}{text}: {user} has no home directory on this host. Use {_FORMS}."
            ) from error
        if not directory.is_absolute():
            # Workers started in other directories would use another one.
            raise _no_store(source)
        return _directory(directory)
    parts = urlsplit(text)
    shown = redact(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise StorageError(
            f"{source}{shown}: a storage URL must not have a user, password or query. Set "
            f"credentials and endpoints in the worker's environment, for example "
            f"AWS_ACCESS_KEY_ID, "
            f"AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL."
        )
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return _directory(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return Location(url=shown, kind="memory", path=f"{parts.netloc}{parts.path}".rstrip("/"))
    if parts.scheme in _CLOUD_SCHEMES and parts.netloc:
        return Location(url=shown, kind="cloud", path="")
    raise _no_store(source)


def _no_store(source: str) -> StorageError:
    # The text is not repeated: it could be a secret that was meant for another setting.
    name = source.rstrip(" =")
    return StorageError(f"{name}: neither an absolute path nor the URL of a store. Use {_FORMS}.")


def open_directory(location: Location) -> None:
    """Create the directory of a location, if it is one, and check that it is writable.

    Raises:
        StorageError: It cannot be created or written to.
    """
    if location.kind != "directory":
        return
    directory = Path(location.path)
    try:
        # Other users of the host must not read payloads and workspaces.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        reason = "not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise StorageError(
            f"{location.source}{directory}: {reason}. Use a directory that this worker can write "
            f"to and that all hosts share, or the URL of a store."
        ) from error


def redact(text: str) -> str:
    """Return `text` without the credentials and queries of the URLs in it."""
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1", re.sub(r"://[^/\s]*@", "://", text))


def _directory(path: Path, *, is_default: bool = False) -> Location:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link keeps the name it was given
    return Location(
        url=absolute.as_uri(), kind="directory", path=str(absolute), is_default=is_default
    )
