"""What a workflow knows of the processes that it polls: how much of their output it was given."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox_core.wire import messages as m


@dataclass(kw_only=True)
class PolledProcess:
    """One process: whose it is, how much of its output was delivered, and whether it has ended."""

    user: str | None = None
    offset: int = 0
    ended: bool = False

    def take(self, response: m.PtyResponse, *, since: int) -> m.PtyResponse:
        """Return what is new in a response to a poll from `since` on, and take note of it.

        Two polls at once are answered with the same output, of which the second delivers only what
        the first did not.
        """
        delivered, self.offset = self.offset, max(self.offset, response.offset or 0)
        self.ended = self.ended or response.process_id is None
        if response.offset is None or delivered <= since:
            return response
        # Output that was cut cannot be told apart any more.
        whole = response.original_token_count is None
        if not whole and response.offset > delivered:
            return response
        return response.model_copy(update={"output": response.output[delivered - since :]})
