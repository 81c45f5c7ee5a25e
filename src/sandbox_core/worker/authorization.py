"""Asks `SandboxPlugin(authorize=...)` before a caller uses a sandbox that it does not own.

A workflow owns a sandbox that it created, and one whose labels name it. It may use the sessions
that it has opened: opening one is what was asked about.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import cast

from temporalio import activity

from sandbox_core.errors import AccessDenied
from sandbox_core.providers import LabelledSandbox, SupportsLabels
from sandbox_core.wire.agents_models import JsonObject, load_state
from sandbox_core.wire.messages import (
    DeleteSessionRequest,
    InspectRequest,
    Message,
    ResumeSessionRequest,
    SessionRequest,
)
from sandbox_core.worker.access import SandboxAccess
from sandbox_core.worker.call import Call
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.labelling import NamedLabels, find_labelled
from sandbox_core.worker.sessions.pool import UserKey
from sandbox_core.worker.sessions.resume import exists, passed_identity, sandbox_identity

logger = logging.getLogger(__name__)


async def check_access(call: Call, operation: str, request: Message) -> None:
    """Return if the current activity's caller may carry out `request`.

    Raises:
        AccessDenied: It may not; nothing was carried out.
        Exception: The backend did not answer, or `authorize` failed; the attempt has failed.
    """
    if call.authorize is None:
        return
    info = activity.info()
    for sandbox_id in await _sandboxes(call, request):
        labels = await _labels(call, sandbox_id)
        if info.workflow_id is not None and labels.get(names.WORKFLOW_ID) == info.workflow_id:
            continue
        access = SandboxAccess(
            provider=call.provider.name,
            operation=operation,
            sandbox_id=sandbox_id,
            labels=labels,
            namespace=info.namespace,
            workflow_id=info.workflow_id,
            workflow_run_id=info.workflow_run_id,
            workflow_type=info.workflow_type,
        )
        answer = call.authorize(access)
        # A function that forgets to return something allows nothing.
        if (await answer if inspect.isawaitable(answer) else answer) is not True:
            refused = _refusal(access)
            logger.warning("%s", refused.message)
            raise refused


def _refusal(access: SandboxAccess) -> AccessDenied:
    who = "a standalone activity"
    if access.workflow_id is not None:
        who = f"workflow {access.workflow_id!r} ({access.workflow_type})"
    owner = access.labels.get(names.WORKFLOW_ID)
    of = "" if owner is None else f" of workflow {owner!r}"
    return AccessDenied(
        f"{access.operation} in sandbox {access.sandbox_id!r}{of}: this worker's "
        f"SandboxPlugin(authorize=...) does not allow it to {who}."
    )


async def _sandboxes(call: Call, request: Message) -> set[str | None]:
    """Return the ids of the sandboxes that a request uses, but not those its caller has open."""
    if isinstance(request, InspectRequest):
        return {request.sandbox_id}
    if isinstance(request, ResumeSessionRequest):
        return await _of_state(call, request.state)
    if not isinstance(request, SessionRequest):
        return set()
    if isinstance(request, DeleteSessionRequest) and request.create_key is not None:
        return await _of_create(call, request.create_key)
    held = call.pool.find(request.session.session_id)
    users = {} if held is None else {user.epoch: key for key, user in held.users.items()}
    user = users.get(request.session.epoch)
    if user is not None and _is_caller(user):
        return set()
    found: set[str | None] = set()
    if held is not None:
        found.add(sandbox_identity(call.provider, held.session.state))
    if isinstance(request, DeleteSessionRequest) and request.state is not None and user is None:
        found |= await _of_state(call, request.state)
    return found


async def _of_state(call: Call, data: JsonObject) -> set[str | None]:
    """Return the sandbox of a session state, and that of the open session with its id."""
    state = load_state(data)
    passed = passed_identity(call.provider, state)
    held = call.pool.find(str(state.session_id))
    found: set[str | None] = set()
    opened = None
    if held is not None:
        opened = sandbox_identity(call.provider, held.session.state)
        if not any(map(_is_caller, held.users)):
            found.add(opened)
    # That of a sandbox that is gone may be restored from a snapshot, in one of the caller's.
    if passed is None:
        if held is None:
            found.add(None)
    elif passed != opened and await exists(call.provider, call.client, state) is not False:
        found.add(passed)
    return found


async def _of_create(call: Call, idempotency_key: str) -> set[str | None]:
    made = await _labelled(call, {names.KEY: idempotency_key})
    found: set[str | None] = {each.sandbox_id for each in made}
    held = call.pool.created(idempotency_key)
    opened = None if held is None else sandbox_identity(call.provider, held.session.state)
    if held is not None and any(map(_is_caller, held.users)):
        return found - {opened}
    return found if held is None else found | {opened}


async def _labels(call: Call, sandbox_id: str | None) -> Mapping[str, str]:
    found = [] if sandbox_id is None else await _labelled(call, {})
    return next((each.labels for each in found if each.sandbox_id == sandbox_id), {})


async def _labelled(call: Call, wanted: Mapping[str, str]) -> list[LabelledSandbox]:
    """Return the sandboxes of the namespace that have the labels; none without usable labels."""
    provider = call.provider
    if call.namespace is None or not isinstance(provider, SupportsLabels):
        return []
    if not await call.trust.check(cast("NamedLabels", provider), call.client):
        return []
    of_namespace = {names.NAMESPACE_ID: call.namespace.id, **wanted}
    return await find_labelled(provider, call.client, of_namespace)


def _is_caller(user: UserKey) -> bool:
    """Return whether a user of a session is the current activity's workflow."""
    info = activity.info()
    return info.workflow_id is not None and user[:2] == (info.workflow_id, info.workflow_run_id)
