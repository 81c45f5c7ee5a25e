"""The errors of sandbox-core.

SandboxCoreError (an ApplicationError: it always ends the workflow, never its task)
+-- AtCapacity                 every worker has as many sandboxes as it may; waited for
+-- CreateConflict             one idempotency key, two different creates
+-- ProviderError
|   +-- DuplicateProvider      two distributions claim one name
|   +-- IncompatibleProvider   written against another version of the contract
|   +-- InvalidProviderName
|   +-- ProviderLoad           installed, but does not import, register or connect
|   +-- UnknownProvider        not installed, or not offered by any worker of the task queue
+-- InvalidOptions             options that the provider does not take
+-- InvalidRequest             a request that no retry can make valid
+-- OperationFailed            the provider raised something that is not a SandboxError
+-- OrphansLeft                a scheduled `sandbox-core reap` did not do all that it should
+-- OutcomeUnknown             a command may have run; it is not repeated
+-- PayloadTooLarge            more bytes than Temporal takes
+-- SandboxLost                the sandbox is gone and there is no snapshot of it
+-- SessionNotOpen             this worker does not hold the session; resolved by resuming
+-- StorageError               the object store does not answer, or lacks what was stored
+-- WorkerBusy                 the worker that holds the session has had no room for too long
"""

from __future__ import annotations

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

__all__ = [
    "AtCapacity",
    "CreateConflict",
    "DuplicateProvider",
    "IncompatibleProvider",
    "InvalidOptions",
    "InvalidProviderName",
    "InvalidRequest",
    "OperationFailed",
    "OrphansLeft",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "ProviderError",
    "ProviderLoad",
    "SandboxCoreError",
    "SandboxLost",
    "SessionNotOpen",
    "StorageError",
    "UnknownProvider",
    "WorkerBusy",
]


class SandboxCoreError(ApplicationError):
    """Base of the errors that sandbox-core itself raises.

    It is an `ApplicationError`, so that a workflow in which one escapes fails with its message
    even on a worker that was set up wrongly, instead of retrying its workflow task for ever.
    """

    benign = False
    """Whether it is an ordinary answer, which Temporal logs for debugging only."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            type=type(self).__name__,
            non_retryable=True,
            category=ApplicationErrorCategory.BENIGN
            if self.benign
            else ApplicationErrorCategory.UNSPECIFIED,
        )

    def __str__(self) -> str:
        return self.message


class AtCapacity(SandboxCoreError):
    """The worker has as many sandboxes as it may; the workflow waits and asks again."""

    benign = True


class CreateConflict(SandboxCoreError):
    """An idempotency key was used before, for another manifest, snapshot or options."""

    @classmethod
    def of_key(cls, key: str) -> CreateConflict:
        """Return the error for a key."""
        return cls(
            f"idempotency key {key} was used before, with another manifest, snapshot or options: "
            f"a key names one create. Make a new one for each."
        )


class ProviderError(SandboxCoreError):
    """A provider cannot be used on this worker."""


class DuplicateProvider(ProviderError):
    """Two installed distributions claim one provider name."""


class IncompatibleProvider(ProviderError):
    """The provider was written against a version of the contract that is not supported."""


class InvalidProviderName(ProviderError):
    """The name does not follow the rule for provider names."""


class ProviderLoad(ProviderError):
    """The provider is installed but does not import, register or connect."""


class UnknownProvider(ProviderError):
    """The provider is not installed here, or no worker of the task queue offers it."""


class InvalidOptions(SandboxCoreError):
    """The options are not the ones that the provider takes."""


class InvalidRequest(SandboxCoreError):
    """The request cannot succeed however often it is repeated."""


class OperationFailed(SandboxCoreError):
    """The provider raised an error that is not a `SandboxError`."""


class OrphansLeft(SandboxCoreError):
    """A scheduled `sandbox-core reap` could not query a provider or delete an orphan."""


class OutcomeUnknown(SandboxCoreError):
    """The operation was sent and may have been carried out; it is not repeated."""


class PayloadTooLarge(SandboxCoreError):
    """More bytes in one file, request or answer than the limit allows."""


class SandboxLost(SandboxCoreError):
    """The sandbox is gone: with a command in it, or without a snapshot of its workspace."""


class SessionNotOpen(SandboxCoreError):
    """The worker does not hold the session; the workflow answers by resuming it."""

    benign = True

    # In the message, so that a workflow that does not know of it resumes the session all the same.
    _EARLIER_ATTEMPT = "; an earlier attempt may have been carried out"

    @classmethod
    def with_earlier_attempt(cls, session_id: str) -> SessionNotOpen:
        """Return the error for a request that may have been carried out by another worker."""
        return cls(f"session {session_id} is not open here{cls._EARLIER_ATTEMPT}")

    @property
    def has_earlier_attempt(self) -> bool:
        """Whether the request may have been carried out by another worker."""
        return self.message.endswith(self._EARLIER_ATTEMPT)


class StorageError(SandboxCoreError):
    """The object store does not answer or refuses, or does not have what was stored.

    With `retryable` it may be otherwise in a moment: an activity or a workflow task is tried again.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        ApplicationError.__init__(
            self, message, type=type(self).__name__, non_retryable=not retryable
        )


class WorkerBusy(SandboxCoreError):
    """The worker that holds the session is alive, but did not start the operation in time."""
