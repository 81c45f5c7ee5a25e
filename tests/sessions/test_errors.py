"""Errors keep their type, and bad input ends a workflow at once with a helpful message."""

from __future__ import annotations

import logging
from typing import Literal

import pytest
from agents.sandbox.errors import ExecTransportError
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from support import attempts, running_worker, unique
from temporalio.activity import _Definition
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import WorkerConfig
from workflows.failures import Escapes
from workflows.sessions import CAUGHT_ERRORS, CaughtErrors, Create, UncaughtError

from sandbox_core.config import load_configuration
from sandbox_core.providers import SandboxClientProvider, discover
from sandbox_core.providers.discovery import select
from sandbox_core.wire import operations as ops
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.activities import _level_of


class _OtherOptions(BaseSandboxClientOptions):
    type: Literal["other"] = "other"


class _BrokenProvider(SandboxClientProvider[_OtherOptions]):
    name = "other"
    summary = "A backend that cannot be reached"
    api_version = 1
    options_type = _OtherOptions

    def create_client(self) -> BaseSandboxClient[_OtherOptions]:
        raise OSError("no route to the backend")


class _OlderPlugin(SandboxPlugin):
    """A worker of a version that has no `create_session`."""

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        config = super().configure_worker(config)
        config["activities"] = [
            fn
            for fn in config.get("activities", ())
            if _Definition.must_from_callable(fn).name != "local-sandbox_create_session"
        ]
        return config


class _PickyProvider(_BrokenProvider):
    def create_client(self) -> BaseSandboxClient[_OtherOptions]:
        # Options are checked before the client is asked for anything.
        return UnixLocalSandboxClient()  # type: ignore[return-value]  # never used


async def _failure(client: Client, queue: str, *args: object) -> tuple[ApplicationError, list[int]]:
    """Return what a `Create` workflow failed with, and the attempts of its activities."""
    handle = await client.start_workflow(
        Create.run, args=args, id=unique("create"), task_queue=queue
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause, attempts(await handle.fetch_history())


class TestSandboxError:
    """A `SandboxError` that a provider raises in an activity."""

    async def test_is_caught_by_its_class_in_the_workflow(self, temporal_client: Client) -> None:
        """So are the built-in errors that the SDK's tools look for, with the same text."""
        async with running_worker(temporal_client, CaughtErrors) as queue:
            seen = await temporal_client.execute_workflow(
                CaughtErrors.run, "local", id=unique("caught"), task_queue=queue
            )

        assert CAUGHT_ERRORS == seen

    async def test_fails_the_workflow_when_it_is_not_caught(self, temporal_client: Client) -> None:
        """It does not fail the workflow task over and over again."""
        async with running_worker(temporal_client, UncaughtError) as queue:
            handle = await temporal_client.start_workflow(
                UncaughtError.run, "local", id=unique("uncaught"), task_queue=queue
            )
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()

            assert isinstance(failed.value.cause, ApplicationError)
            assert failed.value.cause.type == "WorkspaceReadNotFoundError"
            assert failed.value.cause.message == "file not found: missing.txt"
            assert {1} == set(attempts(await handle.fetch_history()))

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ("run", ("ExecTransportError", "no route to the sandbox")),
            ("tool", ("UserError", "the tool cannot be used")),
            ("signal", ("ExecTransportError", "no route to the sandbox")),
        ],
    )
    async def test_fails_the_workflow_wherever_it_escapes(
        self, temporal_client: Client, where: str, expected: tuple[str, str]
    ) -> None:
        """From its run, in an error of the Agents SDK that it is the cause of, from a signal."""
        async with running_worker(temporal_client, Escapes) as queue:
            handle = await temporal_client.start_workflow(
                Escapes.run, where, id=unique("escapes"), task_queue=queue
            )
            if where == "signal":
                await handle.signal(Escapes.tell)
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert expected == (failed.value.cause.type, failed.value.cause.message)

    async def test_fails_an_update_and_not_the_workflow(self, temporal_client: Client) -> None:
        """Who has asked is told."""
        async with running_worker(temporal_client, Escapes) as queue:
            handle = await temporal_client.start_workflow(
                Escapes.run, "nowhere", id=unique("escapes"), task_queue=queue
            )
            with pytest.raises(WorkflowUpdateFailedError) as failed:
                await handle.execute_update(Escapes.ask)
            described = await handle.describe()
            await handle.terminate()

        assert isinstance(failed.value.cause, ApplicationError)
        assert "no route to the sandbox" == failed.value.cause.message
        assert WorkflowExecutionStatus.RUNNING == described.status


class TestBadInput:
    """What can never succeed ends the workflow within one attempt."""

    async def test_an_unknown_provider_names_what_the_queue_offers(
        self, temporal_client: Client
    ) -> None:
        """And the command that installs the missing one."""
        async with running_worker(temporal_client, Create) as queue:
            error, tried = await _failure(temporal_client, queue, "dayton")

        installed = ", ".join(
            each.name for each in select(discover(), load_configuration()).enabled
        )
        assert (
            f"no provider 'dayton' on task queue {queue!r}: it offers {installed}. Check the "
            f"name, or install the provider where the worker runs (see the documentation of its "
            f"author), make sure that SandboxPlugin() is among the worker's plugins, and restart "
            f"it."
        ) == error.message
        assert error.type == "UnknownProvider"
        assert tried == [1]

    async def test_an_operation_that_an_older_worker_does_not_know_says_so(
        self, temporal_client: Client
    ) -> None:
        """It is no question of which providers there are."""
        async with running_worker(temporal_client, Create, plugins=[_OlderPlugin()]) as queue:
            error, tried = await _failure(temporal_client, queue, "local")

        assert "does not know this operation: its sandbox-core is older" in error.message
        assert "'create_session' of provider 'local'" in error.message
        assert tried == [1]

    async def test_an_invalid_provider_name_is_refused_before_anything_is_scheduled(
        self, temporal_client: Client
    ) -> None:
        """The name would become a part of the history."""
        async with running_worker(temporal_client, Create) as queue:
            error, tried = await _failure(temporal_client, queue, "Daytona")

        assert error.message == (
            "'Daytona' is not a provider name: use lower-case letters and digits in words joined "
            "by single hyphens, starting with a letter, for example 'daytona' or 'unix-local'."
        )
        assert tried == []

    async def test_options_of_another_backend_are_refused(self, temporal_client: Client) -> None:
        """The message names the class that the provider takes."""
        async with running_worker(
            temporal_client, Create, plugins=[SandboxPlugin(providers=[_PickyProvider()])]
        ) as queue:
            error, tried = await _failure(temporal_client, queue, "other", True)

        assert (
            f"provider 'other' takes {_OtherOptions.__module__}._OtherOptions (type 'other'); it "
            f"was given options of type 'unix_local'."
        ) == error.message
        assert error.type == "InvalidOptions"
        assert tried == [1]

    async def test_a_client_that_cannot_be_made_says_why(self, temporal_client: Client) -> None:
        """The worker starts all the same; only those who use the provider learn of it."""
        async with running_worker(
            temporal_client, Create, plugins=[SandboxPlugin(providers=[_BrokenProvider()])]
        ) as queue:
            error, tried = await _failure(temporal_client, queue, "other")

        assert error.message == (
            "provider 'other' is installed but cannot be used on this worker: OSError: no route to "
            "the backend"
        )
        assert error.type == "ProviderLoad"
        assert tried == [1]


class TestLevel:
    """Where the worker's log has an error, whose cause does not travel."""

    @pytest.mark.parametrize(
        ("operation", "level"), [(ops.START.name, logging.WARNING), (ops.EXEC.name, logging.DEBUG)]
    )
    def test_an_sdk_error_is_a_warning_where_no_command_was_requested(
        self, operation: str, level: int
    ) -> None:
        error = ExecTransportError(command=("resolve",), context={"reason": "empty_stdout"})

        assert level == _level_of(error, operation)
