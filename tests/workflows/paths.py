"""A workflow that names files whose names have a backslash in them."""

from __future__ import annotations

import io
from pathlib import Path

from temporalio import workflow
from workflows.sessions import new_session


@workflow.defn
class NamesBackslashes:
    """Works on names with a backslash, beside the folders that a backslash could mean."""

    @workflow.run
    async def run(self, provider: str, archive: bytes) -> list[str]:
        async with new_session(provider) as session:
            await session.exec("mkdir -p a/b a/c d; echo safe > a/b/file; mkdir 'a\\b'")
            seen = [str(len(await session.ls("a\\b")))]
            await session.mkdir("d\\e")
            await session.write(Path("d\\f"), io.BytesIO(b"written\n"))
            seen.append((await session.read(Path("d\\f"))).read().decode())
            await session.extract("d\\x.tar", io.BytesIO(archive))
            valid = await session._validate_path_access("a\\b")
            seen += [valid.name, session.normalize_path("a\\b").name]
            await session.rm("a\\b", recursive=True)
            listed = await session.exec("find . -path '*[ad]*' | grep -v bin | sort; cat a/b/file")
            seen += listed.stdout.decode().splitlines()
        return seen
