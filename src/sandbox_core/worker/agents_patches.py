"""Replaces functions of the SDKs on a worker, and says why."""

from __future__ import annotations

from agents.sandbox.manifest import Environment
from agents.sandbox.session.manifest_application import ManifestApplier
from openai.types.responses import response_custom_tool_call_output_param as outputs
from typing_extensions import Required

from sandbox_core.worker.manifest_batches import apply_entry_batch
from sandbox_core.worker.secrets import current_secrets

_sdk_resolve = Environment.resolve


def read_custom_tool_outputs_as_text() -> None:
    """Make a model receive the answers of custom tools, such as `apply_patch`.

    The OpenAI client's type for such an item is ``output: str | Iterable[...]``. The OpenAI Agents
    plugin decodes a model activity's input with pydantic, which takes a string for an iterable of
    characters, so that all further requests to the model fail. With a list instead of an iterable,
    it does not. Calling this again is safe.
    """
    annotations = outputs.ResponseCustomToolCallOutputParam.__annotations__
    annotations["output"] = Required[str | list[outputs.OutputOutputContentList]]


def apply_manifests_in_linear_time() -> None:
    """Make the SDK find overlapping entries in linear time, for all sessions.

    The entries and their order stay the same. Calling this again is safe.
    """
    assert callable(ManifestApplier._apply_entry_batch), "the SDK has changed"
    ManifestApplier._apply_entry_batch = apply_entry_batch  # type: ignore[method-assign,assignment]  # its self has another name


def remember_resolved_environments() -> None:
    """Make the current operation remember the secrets that a backend resolves.

    Backends may resolve a manifest's environment at any time, and an application's `EnvValue` may
    return another value each time, such as a token. Calling this again is safe.
    """
    Environment.resolve = _resolve  # type: ignore[method-assign]  # for every environment


async def _resolve(self: Environment) -> dict[str, str]:
    values = await _sdk_resolve(self)
    current_secrets().remember_environment(self, values)
    return values
