"""A wrong call of the sandbox API ends the workflow; other mistakes are Temporal's to handle."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support import running_worker, unique, until
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from workflows.wrong_calls import OTHERS, WRONG_CALLS, WrongCalls

_SAID = {
    "a keyword of create": "TemporalSandboxClient.create() got an unexpected keyword argument "
    "'manfest'",
    "an argument too few": "TemporalSandboxClient.resume() missing 1 required positional argument: "
    "'state'",
    "a method that is not there": "'TemporalSandboxClient' object has no attribute 'creat'",
    "a keyword of the client": "temporal_sandbox_client() got an unexpected keyword argument "
    "'confg'",
    "a keyword of exec": "WorkflowSandboxSession.exec() got an unexpected keyword argument "
    "'tiemout'",
    "a keyword of ls": "SandboxSession.ls() got an unexpected keyword argument 'usr'",
    "a method of a session": "'WorkflowSandboxSession' object has no attribute 'execute'",
    "a file's user": "WorkflowSandboxSession.write() got an unexpected keyword argument 'usr'",
    "a keyword in a call of several lines": "WorkflowSandboxSession.exec() got an unexpected "
    "keyword argument 'tiemout'",
    "options in a call of a client": "DockerSandboxClientOptions.__init__() got an unexpected "
    "keyword argument 'memory'",
    "a client in an attribute": "TemporalSandboxClient.create() got an unexpected keyword "
    "argument 'manfest'",
    "a keyword of options": "DockerSandboxClientOptions.__init__() got an unexpected keyword "
    "argument 'memory'",
    "an option of another type": "DockerSandboxClientOptions: image: Input should be a valid "
    "string",
    "options of a module": "DockerSandboxClientOptions.__init__() got an unexpected keyword "
    "argument 'memory'",
    "a keyword of the run's": "SandboxRunConfig.__init__() got an unexpected keyword argument "
    "'clent'",
    "a positional argument of a model": "BaseModel.__init__() takes 1 positional argument but 2 "
    "were given",
    "no entries": "Manifest: Artifact mapping must be a mapping, got int",
    "a file without content": "File: content: Field required",
    "an environment of numbers": "Environment: environment value must be a str, EnvValue, or "
    "EnvEntry, got int",
}


async def _started(client: Client, queue: str, mistake: str) -> WorkflowHandle[WrongCalls, None]:
    return await client.start_workflow(
        WrongCalls.run,
        mistake,
        id=unique("wrong-call"),
        task_queue=queue,
        run_timeout=timedelta(seconds=30),
    )


@pytest.mark.parametrize("mistake", WRONG_CALLS)
async def test_it_ends_the_workflow(temporal_client: Client, mistake: str) -> None:
    """With Python's own text, which names the argument; values are not repeated."""
    async with running_worker(temporal_client, WrongCalls) as queue:
        handle = await _started(temporal_client, queue, mistake)
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        history = await handle.fetch_history()

    assert isinstance(failed.value.cause, ApplicationError), failed.value.cause
    # Python 3.13 and later also guess what was meant.
    assert failed.value.cause.message.startswith(_SAID[mistake])
    assert "hunter22" not in failed.value.cause.message
    assert not [e for e in history.events if e.HasField("workflow_task_failed_event_attributes")]


@pytest.mark.parametrize("mistake", OTHERS)
async def test_other_code_can_be_mended_and_deployed_anew(
    temporal_client: Client, mistake: str
) -> None:
    """Its error fails the workflow's task, and the workflow waits."""
    async with running_worker(temporal_client, WrongCalls) as queue:
        handle = await _started(temporal_client, queue, mistake)

        async def task_failed() -> bool:
            history = await handle.fetch_history()
            return any(e.HasField("workflow_task_failed_event_attributes") for e in history.events)

        await until(task_failed)
        described = await handle.describe()
        await handle.terminate()

    assert WorkflowExecutionStatus.RUNNING == described.status
