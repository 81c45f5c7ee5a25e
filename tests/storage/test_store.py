"""Objects in a directory, in memory and on a real S3 server."""

from __future__ import annotations

import io
import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support import unique

from sandbox_core.errors import StorageError
from sandbox_core.storage.object_store import CHUNK_BYTES, ObjectStore


class _Breaking(io.BytesIO):
    """A stream that fails after its first part."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("the disk is gone")
        return super().read(size)


class TestObjects:
    async def test_are_read_as_they_were_written(self, store: ObjectStore) -> None:
        await store.put("a/b", b"\x00\xff")

        assert b"\x00\xff" == await store.get("a/b")

    async def test_are_replaced(self, store: ObjectStore) -> None:
        await store.put("a", b"first")
        await store.put("a", b"second")

        assert b"second" == await store.get("a")

    async def test_may_be_empty(self, store: ObjectStore) -> None:
        await store.put("a", b"")

        assert b"" == await store.get("a")

    async def test_say_their_key_size_and_age(self, store: ObjectStore) -> None:
        await store.put("a/b", b"12345")

        found = await store.head("a/b")

        assert found is not None
        assert ("a/b", 5) == (found.key, found.size)
        assert abs(datetime.now(timezone.utc) - found.modified) < timedelta(minutes=1)

    async def test_are_listed_below_a_folder(self, store: ObjectStore) -> None:
        for key in ("a/1", "a/2", "ab/3", "4"):
            await store.put(key, key.encode())

        assert ["a/1", "a/2"] == sorted([found.key async for found in store.list("a")])

    async def test_are_deleted_and_one_that_is_missing_is_no_error(
        self, store: ObjectStore
    ) -> None:
        await store.put("a", b"x")

        await store.delete(["missing", "a"])

        assert await store.head("a") is None

    async def test_that_are_missing_are_a_final_error_that_names_them(
        self, store: ObjectStore
    ) -> None:
        with pytest.raises(StorageError) as caught:
            await store.get("payloads/missing")

        assert f"storage {store.url}: cannot read payloads/missing: the object or" in str(
            caught.value
        )
        assert caught.value.non_retryable


class TestStreams:
    @pytest.mark.parametrize("size", [0, 10, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
    async def test_come_back_as_they_went(self, store: ObjectStore, size: int) -> None:
        content = os.urandom(size)
        await store.upload("snapshots/s", io.BytesIO(content))

        with await store.download("snapshots/s") as file:
            assert isinstance(file, io.IOBase)
            assert content == file.read()

    async def test_are_read_whole_although_another_is_written_in_their_place(
        self, store: ObjectStore
    ) -> None:
        await store.upload("s", io.BytesIO(b"before"))

        with await store.download("s") as file:
            await store.upload("s", io.BytesIO(b"after"))

            assert b"before" == file.read()

    async def test_that_break_leave_nothing_and_no_part(self, store: ObjectStore) -> None:
        """What was there before stays."""
        await store.put("s", b"before")

        with pytest.raises(StorageError, match="the disk is gone"):
            await store.upload("s", _Breaking(bytes(2 * CHUNK_BYTES)))

        assert b"before" == await store.get("s")
        assert ["s"] == [found.key async for found in store.list("")]

    async def test_that_are_missing_are_an_error(self, store: ObjectStore) -> None:
        with pytest.raises(StorageError, match="snapshots/missing: the object or"):
            await store.download("snapshots/missing")


class TestDirectory:
    async def test_is_made_when_it_is_first_used_for_its_owner_alone(self, tmp_path: Path) -> None:
        directory = tmp_path / "state" / "store"
        store = ObjectStore(directory.as_uri())
        assert not directory.exists()

        await store.put("a", b"x")

        assert 0o700 == stat.S_IMODE(directory.stat().st_mode)

    async def test_that_cannot_be_made_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(StorageError, match=r"cannot write a: \w+Error"):
            await ObjectStore(str(tmp_path / "file" / "store")).put("a", b"x")


class TestMemory:
    async def test_is_shared_by_name(self) -> None:
        name = unique("shared")
        await ObjectStore(f"memory://{name}").put("a", b"x")

        assert b"x" == await ObjectStore(f"memory://{name}").get("a")
        assert await ObjectStore(f"memory://{name}-other").head("a") is None
        assert await ObjectStore(f"memory://{name}/prefix").head("a") is None


class TestUnreachable:
    async def test_is_an_error_that_may_pass_and_names_the_store(
        self, unreachable_url: str
    ) -> None:
        with pytest.raises(StorageError) as caught:
            await ObjectStore(unreachable_url).get("a")

        assert not caught.value.non_retryable
        message = str(caught.value)
        assert message.startswith("storage s3://bucket/prefix: cannot read a: GenericError: ")
        assert "Check that the store is reachable from this host" in message
        assert "s3cr3t" not in message
        assert "\n" not in message

    async def test_a_wrong_bucket_is_an_error(self, s3_url: str) -> None:
        with pytest.raises(StorageError, match="the object or the bucket does not exist"):
            await ObjectStore("s3://no-such-bucket").put("a", b"x")
