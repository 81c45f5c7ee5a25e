"""A snapshot on one host's disk, requested by a workflow, is kept, with a warning."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from agents.sandbox import LocalSnapshotSpec
from local_backend import LocalProvider

from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import dump_snapshot
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.table import HANDLERS
from sandbox_core.worker.sessions.pool import Client


@pytest.mark.parametrize("fleet", [False, True])
async def test_is_warned_about_where_workers_on_other_hosts_share_a_storage(
    fleet: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = LocalProvider()
    call = Call(provider=provider, client=cast("Client", provider.create_client()), fleet=fleet)
    snapshot = dump_snapshot(LocalSnapshotSpec(base_path=tmp_path))

    opened = await HANDLERS[ops.CREATE_SESSION.name](
        call, m.CreateSessionRequest(create_key="key", epoch=1, snapshot=snapshot)
    )

    assert isinstance(opened, m.OpenSessionResponse)
    assert str(tmp_path) == cast("dict[str, str]", opened.state_delta["snapshot"])["base_path"]
    assert fleet is (f"saves its workspace to {tmp_path} of host" in caplog.text)
    await HANDLERS[ops.DELETE_SESSION.name](call, m.DeleteSessionRequest(session=opened.session))
