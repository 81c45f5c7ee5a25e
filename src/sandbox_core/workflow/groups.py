"""Groups a session's events in the workflow's history, as Temporal's tools can show them."""

from __future__ import annotations

from temporalio import workflow
from temporalio.workflow import ActivityConfig, EventGroup

from sandbox_core.workflow.per_workflow import PerWorkflow

_groups: PerWorkflow[dict[tuple[str, str], EventGroup]] = PerWorkflow(dict)


def session_group(provider: str, key: str) -> EventGroup:
    """Return the event group of a session in this workflow.

    Its id is ``{provider}-sandbox-{number}``; the workflow's first session has number 1.

    Args:
        provider: The provider's name.
        key: What the group was asked for with before: the session's id, or the idempotency key of
            a create; see `same_group`.
    """
    known = _groups.get()
    found = known.get((provider, key))
    if found is None:
        number = len(set(known.values())) + 1
        found = known[provider, key] = workflow.create_event_group(f"{provider}-sandbox-{number}")
    return found


def same_group(provider: str, key: str, session_id: str) -> None:
    """Give the session that was created with an idempotency key the group of its create."""
    known = _groups.get()
    known[provider, session_id] = known[provider, key]


def in_group(config: ActivityConfig, group: EventGroup) -> ActivityConfig:
    """Return activity options whose events are in `group`, beside the user's own groups."""
    grouped = config.copy()
    grouped["event_groups"] = [*(config.get("event_groups") or ()), group]
    return grouped
