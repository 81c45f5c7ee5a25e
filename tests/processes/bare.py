"""Runs commands with the backend's own call and under the helper, and compares them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from agents.sandbox.errors import SandboxError
from agents.sandbox.types import ExecResult
from processes.bare_table import ROWS, Row
from processes.driving import Box, command
from temporalio.exceptions import ApplicationError

from sandbox_core.wire.failures import decode_error

ENVIRONMENT = {
    "GREETING": "hello world",
    "mode": "production",
    "timeout": "30",
    "root": "/srv",
    "key": "k",
    "verb": "v",
    "dir": "d",
    "with.dot": "dot",
    "with-dash": "dash",
}
"""Variables of the manifest, some with names that whatever wraps a command might have itself."""

_SCRIPTS = (
    "printf 'echo ran\\n' > bare-script; printf '#!/bin/sh\\necho ran $1\\n' > shebang-script; "
    "chmod +x bare-script shebang-script"
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row whose two outcomes are not the same."""

    name: str
    bare: str
    ours: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.name}\n  bare: {self.bare}\n  ours: {self.ours}"


async def compare(box: Box, backend: str) -> list[Difference]:
    """Return the rows that differ; those that should and do not are among them."""
    await box.session.exec(_SCRIPTS)
    found = []
    for name, row in ROWS.items():
        reason = (row.differs or {}).get(backend)
        bare, ours = await _bare(box, row), await _ours(box, row)
        if bare != ours:
            found.append(Difference(name=name, bare=bare, ours=ours, reason=reason))
        elif reason is not None:
            found.append(
                Difference(name=name, bare=bare, ours=f"the same, but for: {reason}", reason=None)
            )
    return found


async def _bare(box: Box, row: Row) -> str:
    shell = row.shell if isinstance(row.shell, bool) else list(row.shell)
    try:
        return _shown(await box.session.exec(*_words(row), shell=shell, timeout=20))
    except SandboxError as error:
        return _error(error)


async def _ours(box: Box, row: Row) -> str:
    try:
        return _shown(await box.run(command(*_words(row), shell=row.shell, timeout=20)))
    except SandboxError as error:
        return _error(error)
    except ApplicationError as error:
        return _error(decode_error(error))


def _words(row: Row) -> list[str]:
    word = f"word-{uuid.uuid4().hex}"
    return [
        part.replace("{word}", word).replace("{wor[d]}", f"{word[:-1]}[{word[-1]}]")
        for part in row.words
    ]


def _shown(result: ExecResult) -> str:
    return f"exit {result.exit_code}, stdout {result.stdout!r}, stderr {result.stderr!r}"


def _error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
