"""How a command's output is published: as events of Temporal's Workflow Streams.

Workers send pieces of output as signals. The workflow publishes the rest itself, which costs no
event of its history. The names and shapes are those of `temporalio.contrib.workflow_streams`.
"""

from __future__ import annotations

TOPIC = "sandbox-core"
"""The topic of all events."""

PUBLISH_SIGNAL = "__temporal_workflow_stream_publish"
"""The signal with which others than the workflow publish to its stream."""

_PUBLISHER = "sandbox-core"


def publisher_id(operation_id: str, stream: str) -> str:
    """Return the id under which all attempts publish one stream of a command.

    The sequence of a piece is the offset behind it, so what was published before is dropped.
    """
    return f"{_PUBLISHER}/{operation_id}/{stream}"


def published_stream(publisher: str) -> tuple[str, str] | None:
    """Return the operation id and the stream of a publisher; None if it is not one of ours."""
    name, _, rest = publisher.partition("/")
    operation_id, slash, stream = rest.rpartition("/")
    return (operation_id, stream) if name == _PUBLISHER and slash else None
