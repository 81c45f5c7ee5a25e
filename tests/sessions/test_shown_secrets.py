"""A split secret, one in an error and another worker's are redacted; the kit covers the rest."""

from __future__ import annotations

import logging

import pytest
from support import bytes_of, running_worker, unique
from temporalio.client import Client
from workflows.secrets import ShowsSecret

from sandbox_core.worker import SandboxPlugin

SECRET = "s3cr3t-0f-th3-w0rk3r"
_LONGEST_PIECE = 4
"""How many characters of a secret may be seen where it is cut in two."""


async def test_a_secret_is_shown_to_nobody(
    temporal_client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whichever worker or activity has given it to the sandbox."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ACME_TOKEN", SECRET)
    queue = unique("secret")

    def plugins() -> list[SandboxPlugin]:
        return [SandboxPlugin(worker_env=["ACME_TOKEN"], max_output_bytes=1000)]

    async with running_worker(temporal_client, ShowsSecret, plugins=plugins(), task_queue=queue):
        handle = await temporal_client.start_workflow(
            ShowsSecret.run,
            args=["local", "ACME_TOKEN"],
            id=unique("secret"),
            task_queue=queue,
        )
        await handle.execute_update(ShowsSecret.shown)
    async with running_worker(temporal_client, ShowsSecret, plugins=plugins(), task_queue=queue):
        await handle.signal(ShowsSecret.go_on)
        seen = await handle.result()
    written = bytes_of(await handle.fetch_history()).decode(errors="replace")

    # The error of some backends does not name where a link goes.
    assert {"in an error"} >= {where for where, shown in seen.items() if "***" not in shown}
    assert {} == {where: shown for where, shown in seen.items() if _pieces(shown)}
    assert [] == _pieces(written)
    assert [] == _pieces("\n".join(map(caplog.handler.format, caplog.records)))


def _pieces(text: str) -> list[str]:
    length = _LONGEST_PIECE + 1
    pieces = (SECRET[start : start + length] for start in range(len(SECRET) - length + 1))
    return [piece for piece in pieces if piece in text]
