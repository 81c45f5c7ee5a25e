"""States that users pass on: which arrive, and which are refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support import attempts, bytes_of, running_worker, unique
from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, ChildWorkflowError
from workflows.states import TAKERS, NamesHostPath, PassesState, TakesOthersState

LIMIT = timedelta(seconds=20)
"""A workflow task that fails for ever ends the test, and not its patience."""


@pytest.fixture
async def client(temporal_address: str) -> Client:
    """A client whose converter takes pydantic models; Temporal's default one does not."""
    return await Client.connect(temporal_address, data_converter=pydantic_data_converter)


class TestPassed:
    async def test_as_json_arrives_with_any_converter(self, temporal_client: Client) -> None:
        async with running_worker(temporal_client, PassesState, *TAKERS) as queue:
            seen = await temporal_client.execute_workflow(
                PassesState.run,
                "TakesSerializedState",
                id=unique("state"),
                task_queue=queue,
                run_timeout=LIMIT,
            )

        assert "hello\n" == seen

    @pytest.mark.parametrize(
        "taker", ["TakesSerializedState", "TakesLocalState", "TakesWholeState"]
    )
    async def test_as_json_or_by_its_class_arrives(self, client: Client, taker: str) -> None:
        async with running_worker(client, PassesState, *TAKERS) as queue:
            seen = await client.execute_workflow(
                PassesState.run,
                taker,
                id=unique("state"),
                task_queue=queue,
                run_timeout=LIMIT,
            )

        assert "hello\n" == seen

    @pytest.mark.parametrize(
        ("without", "said"),
        [
            (
                None,
                "a session state of type 'docker' cannot be used with provider 'local': pass it to "
                "the client of the provider that created the session.",
            ),
            ("manifest", "not a serialized session state: it has no 'manifest'. Pass the dict"),
            ("type", "not a serialized session state: it has no 'type'. Pass the dict"),
        ],
    )
    async def test_one_of_another_provider_or_a_part_is_refused(
        self, temporal_client: Client, without: str | None, said: str
    ) -> None:
        """Otherwise the local backend would look for the container's folder on the host."""
        async with running_worker(temporal_client, TakesOthersState) as queue:
            handle = await temporal_client.start_workflow(
                TakesOthersState.run,
                without,
                id=unique("state"),
                task_queue=queue,
                run_timeout=LIMIT,
            )
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
            tried = attempts(await handle.fetch_history())

        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "InvalidRequest"
        assert failed.value.cause.message.startswith(said)
        assert tried in ([], [1])

    @pytest.mark.parametrize("taker", ["TakesAnyState", "TakesHeldState"])
    async def test_without_its_class_is_refused_at_once(self, client: Client, taker: str) -> None:
        """Nothing is done with it, and the error says what to pass."""
        async with running_worker(client, PassesState, *TAKERS) as queue:
            with pytest.raises(WorkflowFailureError) as failed:
                await client.execute_workflow(
                    PassesState.run,
                    taker,
                    id=unique("state"),
                    task_queue=queue,
                    run_timeout=LIMIT,
                )

        child = failed.value.cause
        assert isinstance(child, ChildWorkflowError)
        assert isinstance(child.cause, ApplicationError)
        assert "InvalidRequest" == child.cause.type
        assert (
            "a session state of type 'unix_local' has lost its sandbox's id: it was passed "
            "as SandboxSessionState"
        ) in child.cause.message
        assert "Pass client.serialize_session_state(state), a dict" in child.cause.message


class TestHostPath:
    @pytest.mark.parametrize("how", ["resume", "change"])
    async def test_of_a_grant_in_a_state_never_gets_into_the_history(
        self, temporal_client: Client, how: str
    ) -> None:
        """It is refused, as it is in a manifest that a sandbox is created with."""
        async with running_worker(temporal_client, NamesHostPath) as queue:
            handle = await temporal_client.start_workflow(
                NamesHostPath.run, how, id=unique("grant"), task_queue=queue
            )
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
            history = await handle.fetch_history()

        assert isinstance(failed.value.cause, ApplicationError)
        assert "the manifest grants /data with a host_path" in failed.value.cause.message
        assert b"/srv/s3cr3t" not in bytes_of(history)
        assert {1} == set(attempts(history))
