"""A provider's session state that does not survive the round trip is reported at its create."""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal

import pytest
from agents.sandbox import Manifest
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from pydantic import ConfigDict, SecretStr

from sandbox_core.errors import ProviderLoad
from sandbox_core.worker.sessions.portable import check_portable


class _Sound(SandboxSessionState):
    type: Literal["portable-sound"] = "portable-sound"
    number: int = 1


class _Unregistered(SandboxSessionState):
    type: str = "portable-unregistered"


class _Secret(SandboxSessionState):
    type: Literal["portable-secret"] = "portable-secret"
    key: SecretStr = SecretStr("key of the test")


class _Live(SandboxSessionState):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    type: Literal["portable-live"] = "portable-live"
    lock: Any = None


def _made(cls: type[SandboxSessionState], **fields: object) -> SandboxSessionState:
    return cls.model_validate(
        {"manifest": Manifest(), "snapshot": NoopSnapshot(id="none"), **fields}
    )


def test_a_sound_one_is_taken() -> None:
    """As it is, every time."""
    for _ in range(2):
        check_portable("acme", _made(_Sound))


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (_made(_Unregistered), "._Unregistered of provider 'acme' has no `type: Literal[\"...\"]"),
        (
            _made(_Live, lock=Lock()),
            "._Live of provider 'acme' cannot be written as JSON and read again: ",
        ),
    ],
)
def test_one_that_is_not_is_named(state: SandboxSessionState, problem: str) -> None:
    """With its class, its provider, and what is the matter with it."""
    with pytest.raises(ProviderLoad) as raised:
        check_portable("acme", state)
    assert problem in raised.value.message


def test_a_field_that_changes_on_the_way_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It may be one that nobody needs."""
    for _ in range(2):
        check_portable("acme", _made(_Secret))

    [warning] = [record.getMessage() for record in caplog.records]
    assert "._Secret of provider 'acme' comes back from JSON with another key. Secrets" in warning
