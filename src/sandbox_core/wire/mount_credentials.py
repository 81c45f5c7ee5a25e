"""Credentials of cloud mounts: a workflow names them, and a worker has them.

A mount's credentials are fields of text. In a workflow they hold references to variables of the
worker's environment; they are replaced right before the backend's client sees the mount, and what
goes back to the workflow has the references again.
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
    """Return what stands for a variable of the worker's environment in a mount's credentials.

    Put it where a cloud mount takes a key, a token or another credential::

        S3Mount(
            bucket="reports",
            access_key_id=worker_env_reference("AWS_ACCESS_KEY_ID"),
            secret_access_key=worker_env_reference("AWS_SECRET_ACCESS_KEY"),
            mount_strategy=...,
        )

    Only the name travels. The value is read on the worker when the sandbox is created or resumed,
    if ``SandboxPlugin(worker_env=[...])`` allows the name.

    Raises:
        InvalidRequest: `name` cannot be the name of a variable.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be the name of an environment variable.")
    return f"${{worker_env:{name}}}"


class Credential(str):
    """A credential that was read on the worker, and the variable that it was read from."""

    __slots__ = ("variable",)
    variable: str

    @classmethod
    def read_from(cls, variable: str, value: str) -> Credential:
        """Return `value`, which knows its variable."""
        credential = cls(value)
        credential.variable = variable
        return credential


def with_references(mount: Mount) -> Mount:
    """Return `mount` as it may be written into a history.

    Raises:
        InvalidRequest: It has credentials that are no references.
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
            f"the manifest has a cloud mount with credentials: a workflow's history is no place "
            f"for them ({mount.type}: {', '.join(given)}). Name a variable of the worker's "
            f"environment instead, with sandbox_core.workflow.worker_env_reference(NAME) in the "
            f"fields of the mount, or give the sandbox an identity of its own."
        )
    return mount.model_copy(update=read) if read else mount


def referenced_variables(mount: Mount) -> dict[str, str]:
    """Return the fields of a mount that refer to the worker's environment, and the variables."""
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
