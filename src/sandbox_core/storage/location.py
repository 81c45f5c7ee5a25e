"""Determines where the store is: at the configured URL, or in the default directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from sandbox_core.errors import StorageError

STORAGE_VARIABLE = "SANDBOX_CORE_STORAGE"
"""The environment variable with the URL or directory of the store."""

_CLOUD_SCHEMES = ("s3", "gs", "az")
_FORMS = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or a directory"


@dataclass(frozen=True, kw_only=True)
class Location:
    """A place for objects. `url` has no credentials and may be shown."""

    url: str
    kind: Literal["cloud", "directory", "memory"]
    path: str
    """For a directory, its absolute path; for memory, ``name/prefix``."""
    is_default: bool = False
    """Whether it was not configured, so that workers on other hosts do not share it."""


def choose_location(configured: str | None, environ: Mapping[str, str] = os.environ) -> Location:
    """Return the location that `configured` or, if None, the environment names, or the default.

    Raises:
        StorageError: The configured text is not the URL of a store, or contains credentials.
    """
    chosen = configured or environ.get(STORAGE_VARIABLE)
    if chosen:
        return parse_location(chosen)
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return _directory(Path(state) / "sandbox-core" / "storage", is_default=True)


def parse_location(text: str) -> Location:
    """Return the location that a URL or the path of a directory names.

    Raises:
        StorageError: The text is neither, or contains credentials.
    """
    if "://" not in text:
        return _directory(Path(text).expanduser())
    parts = urlsplit(text)
    shown = redact(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise StorageError(
            f"storage {shown}: a storage URL must not have a user, password or query. Set "
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
    raise StorageError(f"storage {shown}: not the URL of a store. Use {_FORMS}.")


def redact(text: str) -> str:
    """Return `text` without the credentials and queries of the URLs in it."""
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1", re.sub(r"://[^/\s]*@", "://", text))


def _directory(path: Path, *, is_default: bool = False) -> Location:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link keeps the name it was given
    return Location(
        url=absolute.as_uri(), kind="directory", path=str(absolute), is_default=is_default
    )
