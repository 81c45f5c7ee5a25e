"""Adapts Temporal's workflow sandbox: what workflows share with us, and what need not be computed.

For each payload of a workflow task, Temporal's worker asks the workflow at least three times which
activity the payload belongs to, and each time compiles and runs code in the workflow sandbox. Only
codecs and storage drivers that depend on that context need the answers. For a short command, they
cost more than sandbox-core itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from temporalio.converter import (
    DataConverter,
    SerializationContext,
    StorageDriverStoreContext,
    WithSerializationContext,
)
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info

from sandbox_core.storage.payload_driver import depends_on_workflows

if TYPE_CHECKING:  # Named by Temporal's abstract class, but not public.
    from temporalio.bridge.proto.workflow_activation import WorkflowActivation
    from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
    from temporalio.worker._command_aware_visitor import CommandInfo

# The same inside and outside the workflow sandbox: option, state and error classes are registered
# and compared by identity.
_SHARED_MODULES = ("agents", "openai", "pluggy", "sandbox_core")


@dataclass
class Contexts:
    """The contexts on which a worker's data converter depends: all, until it is known."""

    serialization: bool = True
    storage: bool = True

    def are_for(self, converter: DataConverter) -> None:
        """Record the worker's data converter."""
        parts = (converter.payload_codec, converter.external_storage)
        self.serialization = any(isinstance(part, WithSerializationContext) for part in parts)
        self.storage = depends_on_workflows(converter.external_storage)


@dataclass(frozen=True)
class ContextSavingRunner(SandboxedWorkflowRunner):
    """Temporal's runner, but it asks workflows only for contexts that something uses."""

    contexts: Contexts = field(default_factory=Contexts)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Create a workflow instance."""
        return _Instance(super().create_instance(det), self.contexts)


def adapted_runner(runner: WorkflowRunner, *, model_modules: Iterable[str]) -> WorkflowRunner:
    """Return a runner whose workflow sandbox shares our modules and `model_modules`.

    Of Temporal's own runner it is a `ContextSavingRunner`. A runner without a workflow sandbox is
    returned unchanged.
    """
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    shared = runner.restrictions.with_passthrough_modules(*_SHARED_MODULES, *model_modules)
    runner = replace(runner, restrictions=shared)
    if type(runner) is not SandboxedWorkflowRunner:
        return runner
    return ContextSavingRunner(
        **{each.name: getattr(runner, each.name) for each in fields(runner) if each.init}
    )


class _Instance(WorkflowInstance):
    def __init__(self, workflow: WorkflowInstance, contexts: Contexts) -> None:
        self._workflow = workflow
        self._contexts = contexts

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        return self._workflow.activate(act)

    def get_serialization_context(
        self, command_info: CommandInfo | None
    ) -> SerializationContext | None:
        if not self._contexts.serialization:
            return None
        return self._workflow.get_serialization_context(command_info)

    def get_external_store_context(
        self, command_info: CommandInfo | None
    ) -> StorageDriverStoreContext:
        if not self._contexts.storage:
            return StorageDriverStoreContext()
        return self._workflow.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self._workflow.get_info()

    def get_thread_id(self) -> int | None:
        return self._workflow.get_thread_id()
