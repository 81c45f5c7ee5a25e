"""The handler of `reap`, which the scheduled workflow calls."""

from __future__ import annotations

from temporalio import activity

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import operations as ops
from sandbox_core.wire.messages import ReapRequest, ReapResponse
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.registry import handles
from sandbox_core.worker.reaping.reaper import NEEDED, as_reapable, reap
from sandbox_core.worker.sessions.labels import Namespace


@handles(ops.REAP)
async def _reap(call: Call, request: ReapRequest) -> ReapResponse:
    provider, temporal = as_reapable(call.provider), activity.client()
    if provider is None:
        raise InvalidRequest(
            f"provider {call.provider.name!r} cannot {NEEDED}, so its orphans cannot be determined."
        )
    namespace = call.namespace or await Namespace.of(temporal)
    return await reap(provider, call.client, temporal, namespace, request)
