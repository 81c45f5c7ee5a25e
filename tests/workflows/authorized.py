"""A workflow that owns a sandbox, and one that comes for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from workflows.visited import Visited

from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class Owner(Visited):
    """Tells others of its sandbox what they would not know."""

    @workflow.run
    async def run(self, provider: str = "local") -> None:
        await super().run(provider)

    @workflow.update
    async def opened(self) -> dict[str, Any]:
        """Return the session's state, and what else is known of it."""
        session = await self._started()
        client = temporal_sandbox_client("local")
        inner: Any = session._inner
        return {
            "state": client.serialize_session_state(session.state),
            "session": {
                "ref": inner._ref.dump(),
                "queue": inner._record.placement.worker_queue,
            },
        }

    @workflow.update
    async def exec_elsewhere(self, command: str) -> str:
        """Run a command with another handle of its session."""
        client = temporal_sandbox_client("local")
        session = await client.resume((await self._started()).state)
        return (await session.exec(command)).stdout.decode()


@workflow.defn
class Intruder:
    """Uses the sandbox of another workflow."""

    @workflow.run
    async def run(self, how: str, state: dict[str, Any], session: dict[str, Any]) -> str:
        if how == "resume":
            client = temporal_sandbox_client("local")
            resumed = await client.resume(client.deserialize_session_state(state))
            return (await resumed.exec("echo intruder")).stdout.decode()
        requests: dict[str, tuple[str, dict[str, Any]]] = {
            "guess": ("exec", {"operation_id": "k", "command": ["echo", "intruder"]}),
            "delete": ("delete_session", {"state": state}),
            "create key": ("delete_session", {"create_key": session["create_key"]}),
        }
        operation, request = requests[how]
        # With another epoch, a delete does not find the session open, and uses the state.
        ref = session["ref"] if how == "guess" else {**session["ref"], "epoch": 1}
        answer: dict[str, Any] = await workflow.execute_activity(
            f"local-sandbox_{operation}",
            {"session": ref, **request},
            start_to_close_timeout=timedelta(seconds=30),
            result_type=dict,
        )
        return str(answer["stdout"])
