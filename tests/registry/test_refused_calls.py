"""Which call of a line Python refused, where the traceback has only the line."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from sandbox_core.worker.refused_calls import only_refused_call


class Client:
    """Takes one keyword, in each way that Python has."""

    def __init__(self, *, name: str = "") -> None:
        self.name = name

    async def create(self, *, name: str = "") -> None:
        """Take it."""

    @classmethod
    def of(cls, name: str) -> Client:
        return cls(name=name)

    @staticmethod
    def named(name: str) -> str:
        return name


_Client: Any = Client
_client: Any = Client()
_WRONG, _RIGHT = {"nam": ""}, {"name": ""}


def _made() -> Any:  # noqa: ANN401 - any
    return _client


def _refused(call: Callable[[], object]) -> tuple[TracebackType, str]:
    with pytest.raises(TypeError) as failed:
        call()
    tb = failed.value.__traceback__
    assert tb is not None
    assert tb.tb_next is not None
    return tb.tb_next, str(failed.value)


@pytest.mark.parametrize(
    ("call", "function"),
    [
        (lambda: _Client(nam=""), "_Client"),
        (lambda: str(_Client(nam="")), "_Client"),
        (lambda: _client.create(_client.named(""), nam=""), "_client.create"),
        (lambda: _Client.of(_client.named("")).of(), "_Client.of(_client.named('')).of"),
        (lambda: _client.of(), "_client.of"),
        (lambda: _Client.of("", ""), "_Client.of"),
        (lambda: _client.named(), "_client.named"),
        (lambda: _Client(**_WRONG), "_Client"),
        (lambda: _made().create(nam=""), "_made().create"),
    ],
)
def test_it_is_found(call: Callable[[], object], function: str) -> None:
    """If it is the only one of its line that the error can be about."""
    found = only_refused_call(*_refused(call))

    assert found is not None
    assert function == ast.unparse(found.func)


@pytest.mark.parametrize(
    "call",
    [
        lambda: [_Client(nam=""), _Client(nam="")],
        lambda: [_made().create(nam=""), _client.create(nam="")],
        lambda: [_client.create(**_WRONG), _client.create(**_RIGHT)],
    ],
)
def test_one_of_several_is_not(call: Callable[[], object]) -> None:
    assert only_refused_call(*_refused(call)) is None
