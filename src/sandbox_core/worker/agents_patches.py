"""What is replaced in the SDKs on a worker, and why."""

from __future__ import annotations

from agents.sandbox.manifest import Environment
from agents.sandbox.session.manifest_application import ManifestApplier
from openai.types.responses import response_custom_tool_call_output_param as module
from typing_extensions import Required

from sandbox_core.worker.manifest_batches import apply_entry_batch
from sandbox_core.worker.secrets import current_secrets

_sdk_resolve = Environment.resolve


def read_custom_tool_outputs_as_text() -> None:
    """Let a model be told what a custom tool has answered, such as `apply_patch`.

    The OpenAI client's type of such an item says ``output: str | Iterable[...]``. Pydantic, by
    which the OpenAI Agents plugin reads what a model activity is given, takes a string for the
    iterable of its characters, and every request to the model fails from then on. It does not with
    a list. Repeating it is safe.
    """
    annotations = module.ResponseCustomToolCallOutputParam.__annotations__
    annotations["output"] = Required[str | list[module.OutputOutputContentList]]


def apply_manifests_in_linear_time() -> None:
    """Replace how the SDK finds which entries overlap, for all sessions; repeating it is safe.

    What is applied, and in which order, stays the same.
    """
    assert callable(ManifestApplier._apply_entry_batch), "the SDK has changed"
    ManifestApplier._apply_entry_batch = apply_entry_batch  # type: ignore[method-assign,assignment]  # its self has another name


def remember_resolved_environments() -> None:
    """Have the current operation know what a backend resolves; repeating it is safe.

    Backends resolve the environment of a manifest whenever they please, and an application's
    `EnvValue` may have another value each time: a token, for instance.
    """
    Environment.resolve = _resolve  # type: ignore[method-assign]  # for every environment


async def _resolve(self: Environment) -> dict[str, str]:
    values = await _sdk_resolve(self)
    current_secrets().remember_environment(self, values)
    return values
