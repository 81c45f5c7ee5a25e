"""The errors of sandbox-core.

SandboxCoreError (an ApplicationError: fails the workflow, never just its task)
+-- AccessDenied               the worker does not let the caller use another's sandbox
+-- AtCapacity                 every worker is at its sandbox limit; the create waits
+-- ConfigError                a setting in the file or in a variable is wrong or unknown
+-- CreateConflict             one idempotency key, two different creates
+-- ProviderError
|   +-- DuplicateProvider      two distributions claim one name
|   +-- IncompatibleProvider   written for another version of the contract
|   +-- InvalidProviderName
|   +-- ProviderLoad           installed, but does not import, register or connect
|   +-- UnknownProvider        not installed, or not offered by any worker of the task queue
+-- InvalidOptions             options that the provider does not accept
+-- InvalidRequest             a request that no retry can make valid
+-- OperationFailed            the provider raised an error other than a SandboxError
+-- OrphansLeft                a scheduled `sandbox-core reap` did not finish its job
+-- OutcomeUnknown             a command may have run; it is not repeated
+-- PayloadTooLarge            a payload larger than Temporal or the worker accepts
+-- SandboxLost                the sandbox is gone and has no snapshot
+-- SessionNotOpen             this worker does not hold the session; resolved by resuming
+-- StorageError               the object store does not answer or lacks an object
+-- WorkerBusy                 the worker that holds the session had no free slot for too long
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

__all__ = [
    "AccessDenied",
    "AtCapacity",
    "ConfigError",
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
    """Base class of the errors that sandbox-core raises.

    As an `ApplicationError`, one that escapes a workflow fails it with its message even on a
    misconfigured worker, instead of retrying the workflow task forever.
    """

    benign = False
    """Whether it is an expected response, which Temporal logs only at debug level."""

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


class AccessDenied(SandboxCoreError):
    """The worker's `SandboxPlugin(authorize=...)` does not let the caller use the sandbox."""


class AtCapacity(SandboxCoreError):
    """The worker or the backend is at its sandbox limit; the workflow waits and tries again.

    Args:
        message: Which limit was reached.
        retry_after: How long the backend says to wait, if it says.
    """

    benign = True

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        # Temporal carries it from the activity into the workflow.
        self._next_retry_delay = retry_after


class ConfigError(SandboxCoreError):
    """A setting in `sandbox.toml` or in an environment variable is wrong or unknown."""


class CreateConflict(SandboxCoreError):
    """An idempotency key was reused with another manifest, snapshot or options."""

    @classmethod
    def of_key(cls, key: str) -> CreateConflict:
        """Return the error for a key."""
        return cls(
            f"idempotency key {key} was already used with another manifest, snapshot or options. "
            f"Use a new key for each create."
        )


class ProviderError(SandboxCoreError):
    """A provider cannot be used on this worker."""


class DuplicateProvider(ProviderError):
    """Two installed distributions claim one provider name."""


class IncompatibleProvider(ProviderError):
    """The provider needs a version of the contract that is not supported."""


class InvalidProviderName(ProviderError):
    """The name is not a valid provider name."""


class ProviderLoad(ProviderError):
    """The provider is installed but does not import, register or connect.

    Args:
        message: Which provider, and why.
        reason: Only why, for those who name the provider themselves; None is the message.
    """

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason


class UnknownProvider(ProviderError):
    """The provider is not installed here, or no worker of the task queue offers it."""


class InvalidOptions(SandboxCoreError):
    """The provider does not accept these options."""


class InvalidRequest(SandboxCoreError):
    """The request cannot succeed, no matter how often it is retried."""


class OperationFailed(SandboxCoreError):
    """The provider raised an error other than a `SandboxError`."""


class OrphansLeft(SandboxCoreError):
    """A scheduled `sandbox-core reap` could not query a provider or delete an orphan."""


class OutcomeUnknown(SandboxCoreError):
    """The operation was sent and may have run; it is not repeated."""


class PayloadTooLarge(SandboxCoreError):
    """A file, request or response exceeds the size limit."""


class SandboxLost(SandboxCoreError):
    """The sandbox is gone, together with a running command or an unsaved workspace."""


class SessionNotOpen(SandboxCoreError):
    """The worker does not hold the session; the workflow then resumes it."""

    benign = True

    # Part of the message, so that older workflows still resume the session.
    _EARLIER_ATTEMPT = "; an earlier attempt may have been carried out"

    @classmethod
    def with_earlier_attempt(cls, session_id: str) -> SessionNotOpen:
        """Return the error for a request that another worker may have carried out."""
        return cls(f"session {session_id} is not open here{cls._EARLIER_ATTEMPT}")

    @property
    def has_earlier_attempt(self) -> bool:
        """Whether another worker may have carried out the request."""
        return self.message.endswith(self._EARLIER_ATTEMPT)


class StorageError(SandboxCoreError):
    """The object store does not answer, refuses access, or lacks an object.

    If `retryable`, the activity or workflow task is tried again.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        ApplicationError.__init__(
            self, message, type=type(self).__name__, non_retryable=not retryable
        )


class WorkerBusy(SandboxCoreError):
    """The worker that holds the session is alive but did not start the operation in time."""
