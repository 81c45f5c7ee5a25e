"""Credentials of cloud mounts: workflows hold references, workers the values.

A mount's credentials are text fields. In a workflow they contain references to variables of the
worker's environment, which the worker resolves just before it passes the mount to the backend's
client. State that returns to the workflow contains the references again.
"""

from __future__ import annotations

import re

from agents.sandbox._mount_security import (
    _AUTHORITY_FIELDS_BY_MOUNT_TYPE,
    _configured_mount_authority_fields,
)
from agents.sandbox.entries import Mount

from sandbox_core.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$\{worker_env:([A-Za-z_][A-Za-z0-9_]*)\}")


def worker_env_reference(name: str) -> str:
    """Return a reference to a variable of the worker's environment, for a mount's credentials.

    For example::

        S3Mount(
            bucket="reports",
            access_key_id=worker_env_reference("AWS_ACCESS_KEY_ID"),
            secret_access_key=worker_env_reference("AWS_SECRET_ACCESS_KEY"),
            mount_strategy=...,
        )

    Only the name is sent. The worker reads the value when it creates or resumes the sandbox, if
    ``SandboxPlugin(worker_env=[...])`` allows the name.

    Raises:
        InvalidRequest: `name` is not a valid variable name.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise InvalidRequest(f"{name!r} is not a valid name of an environment variable.")
    return f"${{worker_env:{name}}}"


class Credential(str):
    """A credential read on the worker, and the variable that it came from."""

    __slots__ = ("variable",)
    variable: str

    @classmethod
    def read_from(cls, variable: str, value: str) -> Credential:
        """Return `value`, tagged with its variable."""
        credential = cls(value)
        credential.variable = variable
        return credential


def with_references(mount: Mount) -> Mount:
    """Return `mount` in the form that may enter a history.

    Raises:
        InvalidRequest: It has credentials other than references.
    """
    credentials = _credentials(mount)
    read = {
        name: worker_env_reference(value.variable)
        for name, value in credentials.items()
        if isinstance(value, Credential)
    }
    referenced = read | {
        name: value for name, value in credentials.items() if _REFERENCE.fullmatch(value)
    }
    given = _configured_mount_authority_fields(
        mount.model_copy(update=dict.fromkeys(referenced)) if referenced else mount
    )
    if given:
        raise InvalidRequest(
            f"the manifest has a cloud mount with credentials, which must not enter a workflow's "
            f"history ({mount.type}: {', '.join(given)}). Set these fields to "
            f"sandbox_core.workflow.worker_env_reference(NAME), which names a variable of the "
            f"worker's environment, or give the sandbox its own cloud identity."
        )
    return mount.model_copy(update=read) if read else mount


def referenced_variables(mount: Mount) -> dict[str, str]:
    """Return a mount's fields that refer to the worker's environment, with the variables."""
    return {
        name: match[1]
        for name, value in _credentials(mount).items()
        if (match := _REFERENCE.fullmatch(value))
    }


def _credentials(mount: Mount) -> dict[str, str]:
    values = {
        name: getattr(mount, name, None)
        for name in _AUTHORITY_FIELDS_BY_MOUNT_TYPE.get(mount.type, ())
    }
    return {name: value for name, value in values.items() if isinstance(value, str)}
