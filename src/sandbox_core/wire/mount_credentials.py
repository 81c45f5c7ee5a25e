"""Credentials of cloud mounts: a workflow names them, and a worker has them.

A mount's credentials are fields of text. In a workflow they hold references to variables of the
worker's environment; they are replaced right before the backend's client sees the mount, and what
goes back to the workflow has the references again.
"""

from __future__ import annotations

import re

from agents.sandbox import Manifest
from agents.sandbox._mount_security import (
    _AUTHORITY_FIELDS_BY_MOUNT_TYPE,
    _configured_mount_authority_fields,
)
from agents.sandbox.entries import BaseEntry, Mount

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.manifest_entries import change_entries, change_entry
from sandbox_core.wire.worker_env import current_resolver

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$\{worker_env:([A-Za-z_][A-Za-z0-9_]*)\}")

_WHAT = "the credentials of mounts"


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


class _Credential(str):
    """A credential that was read on the worker, and the reference that it was read for."""

    __slots__ = ("reference",)
    reference: str


def with_references(mount: Mount) -> Mount:
    """Return `mount` as it may be written into a history.

    Raises:
        InvalidRequest: It has credentials that are no references.
    """
    credentials = _credentials(mount)
    read = {
        name: value.reference
        for name, value in credentials.items()
        if isinstance(value, _Credential)
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


def with_credentials(manifest: Manifest) -> Manifest:
    """Return `manifest` with what its mounts refer to; only an activity on a worker can.

    Raises:
        InvalidRequest: A variable is not allowed on this worker, or is not set.
    """
    return change_entries(manifest, _with_credentials)


def entry_with_credentials(entry: BaseEntry) -> BaseEntry:
    """Return one entry as `with_credentials` returns those of a manifest."""
    return change_entry(entry, _with_credentials)


def _with_credentials(entry: BaseEntry) -> BaseEntry:
    if not isinstance(entry, Mount):
        return entry
    read = {
        name: _read(match)
        for name, value in _credentials(entry).items()
        if (match := _REFERENCE.fullmatch(value))
    }
    return entry.model_copy(update=read) if read else entry


def redact_credentials(manifest: Manifest) -> None:
    """Have what the mounts of an open session were given taken out of the current answer."""
    for _, entry in manifest.iter_entries():
        if isinstance(entry, Mount):
            for value in _credentials(entry).values():
                if isinstance(value, _Credential):
                    current_resolver(_WHAT).resolved.add(value.encode())


def _read(reference: re.Match[str]) -> _Credential:
    credential = _Credential(current_resolver(_WHAT).resolve(reference[1]))
    credential.reference = reference[0]
    return credential


def _credentials(mount: Mount) -> dict[str, str]:
    values = {
        name: getattr(mount, name, None)
        for name in _AUTHORITY_FIELDS_BY_MOUNT_TYPE.get(mount.type, ())
    }
    return {name: value for name, value in values.items() if isinstance(value, str)}
