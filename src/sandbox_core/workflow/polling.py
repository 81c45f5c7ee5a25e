"""Tracks how much of each polled process's output a workflow has received."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox_core.wire import messages as m
from sandbox_core.workflow.live_output import LiveCommand


@dataclass(kw_only=True)
class PolledProcess:
    """One process: its user, how much of its output was delivered, and whether it has ended.

    `live` publishes it; None if it is not published, or was started through another handle.
    """

    user: str | None = None
    live: LiveCommand | None = None
    offset: int = 0
    ended: bool = False

    def take(self, response: m.PtyResponse, *, since: int) -> m.PtyResponse:
        """Return the new part of a response to a poll from offset `since`, and record it.

        Two concurrent polls get the same output; the second then delivers only what is new.
        """
        delivered, self.offset = self.offset, max(self.offset, response.offset or 0)
        self.ended = self.ended or response.process_id is None
        if response.offset is None or delivered <= since:
            return response
        # Truncated output can no longer be split at an offset.
        whole = response.original_token_count is None
        if not whole and response.offset > delivered:
            return response
        return response.model_copy(update={"output": response.output[delivered - since :]})
