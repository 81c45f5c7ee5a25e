"""A workflow that does not catch a sandbox's error."""

from __future__ import annotations

from agents.exceptions import UserError
from agents.sandbox.errors import ExecTransportError
from temporalio import workflow


def fail() -> None:
    """Raise what a session raises when its backend cannot be reached."""
    raise ExecTransportError(command=["true"], message="no route to the sandbox")


@workflow.defn
class Escapes:
    """Fails in its run or in a handler, as it is told."""

    @workflow.run
    async def run(self, where: str) -> None:
        if where == "run":
            fail()
        if where == "tool":
            try:
                fail()
            except ExecTransportError as error:
                raise UserError("the tool cannot be used") from error
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    async def tell(self) -> None:
        """Fail in a signal."""
        fail()

    @workflow.update
    async def ask(self) -> None:
        """Fail in an update."""
        fail()
