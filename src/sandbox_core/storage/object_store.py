"""Provides the operations on an object store that payloads and snapshots need."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from sandbox_core.errors import StorageError
from sandbox_core.storage.location import Location, parse_location, redact
from sandbox_core.storage.metrics import StorageMetrics

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Backend

CHUNK_BYTES = 8 * 1024 * 1024
"""The size of the parts in which a stream is written."""

_CONCURRENT_PARTS = 4
# Several pieces are in memory at a time, and larger ones are not read faster.
_PIECE_BYTES = 1024 * 1024
# The request timeout covers the whole body of a download, which may be large. The read timeout
# ends a connection that transfers nothing.
_CLIENT: ClientConfig = {"connect_timeout": "3s", "read_timeout": "30s", "timeout": "1h"}
_CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
)
_BACKOFF: BackoffConfig = {
    "init_backoff": timedelta(milliseconds=100),
    "max_backoff": timedelta(seconds=2),
    "base": 2,
}
_RETRY: RetryConfig = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=15),
    "backoff": _BACKOFF,
}

_memory: dict[str, MemoryStore] = {}


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object's key, size in bytes and time of writing, as reported by the store."""

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """Objects by key in one place: S3, GCS, Azure, a directory, or this process's memory.

    Obstore reads credentials and endpoints from the environment. The first operation opens the
    store, and creates the directory.

    Every method raises `StorageError`: retryable if the store did not answer or refused, final if
    an object does not exist.
    """

    def __init__(self, location: Location | str) -> None:
        """Use the store at `location`, without opening it yet.

        Raises:
            StorageError: `location` is not the URL of a store.
        """
        self._location = parse_location(location) if isinstance(location, str) else location
        self.metrics = StorageMetrics()
        self._prefix = ""
        self._backend: Backend | None = None

    @property
    def url(self) -> str:
        """The URL, without credentials."""
        return self._location.url

    async def put(self, key: str, content: bytes) -> None:
        """Write an object atomically."""
        with self._naming("write", key):
            await obstore.put_async(self._open(), self._path(key), content)
        self.metrics.written(key, len(content))

    async def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        with self._naming("read", key):
            found = await obstore.get_async(self._open(), self._path(key))
            content = bytes(await found.bytes_async())
        self.metrics.read(key, len(content))
        return content

    async def head(self, key: str) -> StoredObject | None:
        """Return an object's metadata, or None if it does not exist."""
        with self._naming("look up", key):
            try:
                meta = await obstore.head_async(self._open(), self._path(key))
            except FileNotFoundError:
                return None
            return self._stored(meta, key=key)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Yield the objects whose keys are below the folder `prefix`."""
        with self._naming("list", prefix):
            async for batch in obstore.list(self._open(), self._path(prefix)):
                for meta in batch:
                    yield self._stored(meta)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, many per request; missing ones are ignored.

        If this fails, some of them may have been deleted.
        """
        if not keys:
            return
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        with self._naming("delete", f"{keys[0]}{more}"):
            try:
                await obstore.delete_async(self._open(), [self._path(key) for key in keys])
            except FileNotFoundError:
                # Some stores stop at the first missing object.
                for key in keys:
                    with suppress(FileNotFoundError):
                        await obstore.delete_async(self._open(), self._path(key))

    async def upload(self, key: str, stream: io.IOBase | IO[bytes]) -> None:
        """Write an object atomically from a binary stream, in parts.

        If the stream raises an error, it is raised unchanged and nothing is written.
        """
        source, size = cast("IO[bytes]", stream), 0

        async def parts() -> AsyncIterator[bytes]:
            nonlocal size
            while part := await asyncio.to_thread(source.read, CHUNK_BYTES):
                size += len(part)
                yield part

        with self._naming("write", key):
            await obstore.put_async(
                self._open(),
                self._path(key),
                parts(),
                chunk_size=CHUNK_BYTES,
                max_concurrency=_CONCURRENT_PARTS,
            )
        self.metrics.written(key, size)

    async def download(self, key: str) -> IO[bytes]:
        """Return an object as an open file: the store's own, or an unnamed temporary one."""
        with self._naming("read", key):
            if self._location.kind == "directory":
                # Safe: a later write replaces the file and does not change this one.
                file: IO[bytes] = await asyncio.to_thread(
                    open, Path(self._location.path, key), "rb"
                )
            else:
                file = await self._copied(key)
        self.metrics.read(key, os.fstat(file.fileno()).st_size)
        return file

    async def _copied(self, key: str) -> IO[bytes]:
        file = await asyncio.to_thread(tempfile.TemporaryFile)
        try:
            found = await obstore.get_async(self._open(), self._path(key))
            async for part in found.stream(min_chunk_size=_PIECE_BYTES):
                await asyncio.to_thread(file.write, part)
            await asyncio.to_thread(file.seek, 0)
        except BaseException:
            file.close()
            raise
        return file

    def _open(self) -> Backend:
        if self._backend is None:
            self._backend = self._new_backend()
        return self._backend

    def _new_backend(self) -> Backend:
        location = self._location
        if location.kind == "directory":
            directory = Path(location.path)
            # Other users of the host must not read payloads and workspaces.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return LocalStore(directory)
        if location.kind == "memory":
            name, _, self._prefix = location.path.partition("/")
            return _memory.setdefault(name, MemoryStore())
        return from_url(location.url, client_options=_client_options(), retry_config=_RETRY)

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _stored(self, meta: ObjectMeta, *, key: str | None = None) -> StoredObject:
        # A cloud store lists keys without its prefix, but looks them up with it.
        listed = meta["path"]
        if self._prefix:
            listed = listed.removeprefix(f"{self._prefix}/")
        return StoredObject(key=key or listed, size=meta["size"], modified=meta["last_modified"])

    @contextmanager
    def _naming(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(
                f"storage {self.url}: cannot {action} {key}: the object or the bucket does not "
                f"exist. Check that all clients and workers use the same storage, and that the "
                f"object was not deleted."
            ) from error
        except (BaseError, OSError, ValueError) as error:
            raise StorageError(
                f"storage {self.url}: cannot {action} {key}: {_reason(error)}. Check that the "
                f"store is reachable from this host and that the credentials in the environment "
                f"are valid.",
                retryable=True,
            ) from error


def _client_options(environ: Mapping[str, str] = os.environ) -> ClientConfig:
    # Obstore reads these from the environment too, but only if no options are passed.
    options = dict(_CLIENT)
    for option in _CLIENT_OPTIONS:
        for vendor in ("AWS", "GOOGLE", "AZURE"):
            value = environ.get(f"{vendor}_{option.upper()}")
            if value:
                options[option] = value
    return cast("ClientConfig", options)


def _reason(error: Exception) -> str:
    # Obstore appends many lines of debugging output, and servers a document with request ids.
    line = (str(error).splitlines() or [""])[0].partition("<")[0]
    return f"{type(error).__name__}: {redact(line)}".rstrip(" .:-")
