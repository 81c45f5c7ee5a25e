"""The files that go into an archive's inner archive, and those that are refused."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import pytest
from agents.sandbox.util.tar_utils import validate_tarfile

from sandbox_core.errors import InvalidRequest
from sandbox_core.worker.sessions.archives import RESTORED_LAST, checked, packed


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def archive(*members: tarfile.TarInfo, within: bytes | None = None) -> io.BytesIO:
    """Return an archive of empty members, and one with this content that is unpacked last."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for each in members:
            tar.addfile(each)
        if within is not None:
            last = tarfile.TarInfo(RESTORED_LAST)
            last.size = len(within)
            tar.addfile(last, io.BytesIO(within))
    made.seek(0)
    return made


def names(data: io.IOBase | IO[bytes] | None) -> list[str]:
    assert data is not None
    with tarfile.open(fileobj=cast("IO[bytes]", data), mode="r") as tar:
        return tar.getnames()


class TestSaved:
    def test_is_left_as_it_is_without_anything_special(self) -> None:
        saved = archive(
            member(".", tarfile.DIRTYPE), member("./a"), member("./b", tarfile.SYMTYPE, "a")
        )

        assert saved is packed(saved)
        assert 0 == saved.tell()

    def test_is_left_as_it_is_if_it_is_a_snapshot_of_the_backend_s_own(self) -> None:
        saved = io.BytesIO(b"ACME_SNAPSHOT\n" + b"{}" * 1000)

        assert saved is packed(saved)
        assert (saved, False) == checked(saved)
        assert 0 == saved.tell()

    def test_that_cannot_be_read_twice_is_copied(self) -> None:
        class Stream(io.BytesIO):
            def seekable(self) -> bool:
                return False

        assert ["a"] == names(packed(Stream(archive(member("a")).read())))

    def test_is_what_the_sdk_restores_with_the_rest_in_one_file(self) -> None:
        saved = packed(
            archive(
                member("./a"),
                member("./hard", tarfile.LNKTYPE, "./a"),
                member("./pipe", tarfile.FIFOTYPE),
                member("./link", tarfile.SYMTYPE, "/usr/bin/python3"),
                member("./odd\\name"),
            )
        )

        with tarfile.open(fileobj=saved) as tar:
            validate_tarfile(tar, allow_external_symlink_targets=False)
            inner = tar.extractfile(RESTORED_LAST)
            assert ["./a", RESTORED_LAST] == tar.getnames()
            assert ["./hard", "./pipe", "./link", "./odd\\name"] == names(inner)
        saved.seek(0)
        assert (saved, True) == checked(saved)

    @pytest.mark.parametrize(
        ("refused", "why"),
        [
            (member("./dev/sda", tarfile.BLKTYPE), "dev/sda is a device"),
            (member("./tty", tarfile.CHRTYPE), "tty is a device"),
            (member("./a/l", tarfile.SYMTYPE, "../../x"), r"a/l is a link to \.\./\.\./x, outside"),
            (
                member("./h", tarfile.LNKTYPE, "./gone"),
                "h is a hard link to '\\./gone', which is not",
            ),
        ],
    )
    def test_is_refused_by_name(self, refused: tarfile.TarInfo, why: str) -> None:
        with pytest.raises(InvalidRequest, match=why):
            packed(archive(member("./a", tarfile.DIRTYPE), refused))

    def test_is_refused_with_a_few_of_many_names(self) -> None:
        devices = [member(f"./d{n}", tarfile.CHRTYPE) for n in range(1007)]

        with pytest.raises(InvalidRequest, match="d4 is a device; and 1,002 more"):
            packed(archive(*devices))

    def test_may_have_files_with_holes(self, tmp_path: Path) -> None:
        """Only where something else is special are they written anew."""
        with (tmp_path / "holes").open("wb") as file:
            file.truncate(1024 * 1024)
            file.seek(512 * 1024)
            file.write(b"in the middle")
        (tmp_path / "link").symlink_to("/nowhere")
        made = io.BytesIO()
        made.write(
            subprocess.run(
                ["tar", "-C", str(tmp_path), "-cSf", "-", "."], capture_output=True, check=True
            ).stdout
        )
        made.seek(0)

        with tarfile.open(fileobj=packed(made)) as tar:
            content = tar.extractfile("./holes")
            assert content is not None
            assert (tmp_path / "holes").read_bytes() == content.read()


class TestRestored:
    @pytest.mark.parametrize(
        "hostile",
        [
            lambda: [member("../outside")],
            lambda: [member("/etc/passwd")],
            lambda: [member("a/../../outside")],
            lambda: [member("l", tarfile.SYMTYPE, "/etc"), member("l/passwd")],
            lambda: [member("outer/passwd")],
            lambda: [
                member("l", tarfile.SYMTYPE, "/etc"),
                member("h", tarfile.LNKTYPE, "l/passwd"),
            ],
            lambda: [
                member("l", tarfile.SYMTYPE, "/etc"),
                member("h", tarfile.LNKTYPE, "l"),
                member("h/passwd"),
            ],
            lambda: [
                member("l", tarfile.SYMTYPE, "/etc"),
                member("l/passwd"),
                member("l", tarfile.DIRTYPE),
            ],
            lambda: [member("h", tarfile.LNKTYPE, "/etc/passwd")],
            lambda: [member("h", tarfile.LNKTYPE, "outer/../../etc/passwd")],
            lambda: [member("null", tarfile.CHRTYPE)],
        ],
    )
    def test_stays_inside(self, hostile: Callable[[], list[tarfile.TarInfo]]) -> None:
        """What a workflow is given may have been made by anybody."""
        within = archive(*hostile()).getvalue()

        with pytest.raises(InvalidRequest, match="could not be restored"):
            checked(archive(member("outer", tarfile.SYMTYPE, "inner"), within=within))
