"""The storage: where it is, whether objects can be kept there, and who shares it."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import suppress
from pathlib import Path

from sandbox_core.cli.doctor.findings import Finding
from sandbox_core.cli.ending import let_end
from sandbox_core.config import Configuration
from sandbox_core.errors import StorageError
from sandbox_core.storage.location import (
    STORAGE_VARIABLE,
    Location,
    choose_location,
    open_directory,
)
from sandbox_core.storage.object_store import ObjectStore

_ANSWERED_WITHIN_S = 20.0
_DELETED_WITHIN_S = 5.0
_WHERE, _USE, _SHARED = "storage location", "storage access", "storage sharing"
_CONFIGURE = f"set {STORAGE_VARIABLE} (or SandboxPlugin(storage=...)) to s3://bucket/prefix, gs://"
_CONFIGURE += " or az://, or to a directory that all hosts mount"


async def check_storage(configured: str | None, configuration: Configuration) -> list[Finding]:
    """Return the findings about the storage that a worker would use.

    Args:
        configured: What ``--storage`` says; None for the configuration.
        configuration: The settings.
    """
    source = "--storage" if configured else configuration.named("storage")
    try:
        location = choose_location(configured, configuration)
    except StorageError as error:
        # What is not a URL is not shown: it may be a credential in the wrong place.
        is_url = "://" in (configured or configuration.settings.storage or "")
        seen = error.message if is_url else f"{source} is neither an absolute path nor a URL"
        return [Finding(check=_WHERE, verdict="problem", seen=seen, fix=_CONFIGURE)]
    named = "default" if location.is_default else source
    return [
        Finding(check=_WHERE, seen=f"{location.url} ({named})"),
        await let_end(_use(location)),
        _sharing(location),
    ]


async def _use(location: Location) -> Finding:
    missing = _missing_directories(location)
    try:
        open_directory(location)
        seen = await asyncio.wait_for(_round_trip(ObjectStore(location)), _ANSWERED_WITHIN_S)
    except StorageError as error:
        return Finding(check=_USE, verdict="problem", seen=error.message, fix=_access(location))
    except asyncio.TimeoutError:
        seen = f"no answer within {_ANSWERED_WITHIN_S:g} s"
        return Finding(check=_USE, verdict="problem", seen=seen, fix=_access(location))
    finally:
        for directory in missing:
            with suppress(OSError):  # Somebody uses it meanwhile.
                directory.rmdir()
    if seen:
        return Finding(
            check=_USE,
            verdict="warning",
            seen=seen,
            fix="permit the credentials that `sandbox-core storage gc --delete` uses to delete",
        )
    return Finding(check=_USE, seen="an object was written, read and deleted")


async def _round_trip(store: ObjectStore) -> str:
    """Write, read and delete an object; return what is wrong short of a `StorageError`.

    Raises:
        StorageError: It cannot be written or read, or is not what was written.
    """
    key, content = f"doctor-{uuid.uuid4()}", os.urandom(32)
    try:
        # A store may complete a write that was cancelled, even after the deletion.
        await let_end(store.put(key, content))
        if await store.get(key) != content:
            raise StorageError(f"storage {store.url}: {key} does not contain what was written")
    except BaseException:
        with suppress(StorageError, asyncio.TimeoutError):
            await asyncio.wait_for(store.delete([key]), _DELETED_WITHIN_S)
        raise
    try:
        await let_end(store.delete([key]))
    except StorageError as error:
        return f"objects can be written and read, but not deleted; {key} remains: {error.message}"
    return ""


def _missing_directories(location: Location) -> list[Path]:
    """Return the directories that a check would create, the innermost first."""
    if location.kind != "directory":
        return []
    directory = Path(location.path)
    return [each for each in (directory, *directory.parents) if not each.exists()]


def _access(location: Location) -> str:
    if location.kind == "directory":
        return f"make {location.path} writable for this user, or {_CONFIGURE}"
    return (
        "set the credentials (and the endpoint) in this environment, such as AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL, and check that the bucket exists"
    )


def _sharing(location: Location) -> Finding:
    if location.kind == "cloud":
        return Finding(check=_SHARED, seen="shared by all hosts")
    if location.kind == "memory":
        return Finding(
            check=_SHARED,
            verdict="warning",
            seen="it is in one process's memory: no other worker or client finds anything there",
            fix=_CONFIGURE,
        )
    if location.is_default:
        return Finding(
            check=_SHARED,
            verdict="warning",
            seen="a directory of this host: all workers must run here",
            fix=_CONFIGURE,
        )
    return Finding(check=_SHARED, seen="a directory, which every worker's host must mount")
