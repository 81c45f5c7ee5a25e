"""Provider `daytona` in workflows: the vendor's SDK against the loopback server."""

from __future__ import annotations

from pathlib import Path

import pytest
from agents.sandbox import Manifest
from daytona import DaytonaAuthenticationError
from daytona_loopback import DaytonaLoopback
from daytona_workflows import CreateFromImage
from loopback.http_faults import HttpFaults
from support import attempts, running_worker, unique
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from workflows.sessions import Create

from sandbox_core.errors import InvalidRequest
from sandbox_daytona import DaytonaProvider

pytest_plugins = ["daytona_fixtures"]

README = Path(__file__).parents[3] / "README.md"


class TestLookups:
    """What the provider asks Daytona for."""

    async def test_no_answer_is_not_a_no(
        self, server: DaytonaLoopback, provider: DaytonaProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wrong key raises; the sandbox may well exist."""
        monkeypatch.setenv("DAYTONA_API_KEY", "wrong")
        async with provider.create_client() as client:
            with pytest.raises(DaytonaAuthenticationError):
                await provider.exists(client, "some-sandbox")

    async def test_check_accepts_the_right_key_only(
        self, server: DaytonaLoopback, provider: DaytonaProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before anything is created."""
        async with provider.create_client() as client:
            await provider.check(client)
        monkeypatch.setenv("DAYTONA_API_KEY", "wrong")
        async with provider.create_client() as client:
            with pytest.raises(DaytonaAuthenticationError):
                await provider.check(client)

    def test_the_state_of_another_backend_is_refused(self, provider: DaytonaProvider) -> None:
        """It has no id at Daytona."""
        from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
        from agents.sandbox.snapshot import NoopSnapshot

        state = UnixLocalSandboxSessionState(snapshot=NoopSnapshot(id="x"), manifest=Manifest())

        with pytest.raises(InvalidRequest, match="a session state of type 'unix_local' is not"):
            provider.identity(state)


class TestCreate:
    """A create, and one that cannot succeed."""

    async def test_takes_the_options_of_the_vendor(
        self, server: DaytonaLoopback, temporal_client: Client
    ) -> None:
        """As the README shows them."""
        async with running_worker(temporal_client, CreateFromImage) as queue:
            image = await temporal_client.execute_workflow(
                CreateFromImage.run, id=unique("image"), task_queue=queue
            )

        assert f'DaytonaSandboxClientOptions(image="{image}")' in README.read_text()
        assert (1, {}) == (server.created, dict(server.sandboxes))

    async def test_with_a_wrong_key_fails_the_workflow_in_one_attempt(
        self, server: DaytonaLoopback, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The vendor's message says what is wrong, and nothing is made."""
        monkeypatch.setenv("DAYTONA_API_KEY", "wrong")
        async with running_worker(temporal_client, Create) as queue:
            handle = await temporal_client.start_workflow(
                Create.run, args=["daytona"], id=unique("create"), task_queue=queue
            )
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.message.startswith("DaytonaAuthenticationError: ")
        assert [1] == attempts(await handle.fetch_history())
        assert 0 == server.created


class TestFault(HttpFaults):
    """Of Daytona's API."""

    create = "POST /api/sandbox"
    lookup = "GET /api/sandbox/.+"
    delete = "DELETE /api/sandbox/.+"
    execute = "POST /toolbox/.+/process/session/.+/exec"
    listing = "GET /api/sandbox"
    at_capacity = (
        403,
        {
            "statusCode": 403,
            "message": "Total CPU limit exceeded. Maximum allowed: 10.\nTo increase your limits, "
            "upgrade your organization's tier",
            "code": "FORBIDDEN",
        },
    )
