"""What a check is: one promise of a provider, how it is checked, and what users lose without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from sandbox_core.testing.contract.subject import Subject

Level: TypeAlias = Literal["package", "session", "labels", "durable"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""In the order in which they are checked: each takes longer than the one before."""


class PromiseBroken(AssertionError):
    """A check has seen something else than what the contract promises."""


class NotApplicable(Exception):
    """A check does not apply to this sandbox; the message says why, and what users lose."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One promise."""

    name: str
    """The module and the function that check it: ``commands.streams_come_apart``."""

    level: Level
    promise: str
    """One sentence."""

    cost: str
    """What users lose where it is broken."""

    needs: tuple[str, ...]
    """The abilities without which it does not apply, as `sandbox-core providers` names them."""

    slow: bool
    """Whether it takes longer than about ten seconds with a local backend."""

    provisional: bool
    """Whether it is new: for one release, who breaks it is warned, and breaks no promise."""

    function: Callable[[Subject], Awaitable[None]]

    async def __call__(self, subject: Subject) -> None:
        """Check it.

        Raises:
            PromiseBroken: With what was seen.
            NotApplicable: It has no meaning here.
            Exception: The provider raised it where it must not.
        """
        await self.function(subject)


def check(
    level: Level,
    *,
    cost: str,
    needs: tuple[str, ...] = (),
    slow: bool = False,
    provisional: bool = False,
) -> Callable[[Callable[[Subject], Awaitable[None]]], Check]:
    """Make a check of a function, whose docstring states the promise."""

    def make(function: Callable[[Subject], Awaitable[None]]) -> Check:
        area = function.__module__.rpartition(".")[2]
        promise = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        return Check(
            name=f"{area}.{function.__name__}",
            level=level,
            promise=promise,
            cost=cost,
            needs=needs,
            slow=slow,
            provisional=provisional,
            function=function,
        )

    return make


def checks_in(module: ModuleType) -> Iterator[Check]:
    """Iterate over the checks of a module, in the order of their definition."""
    return (value for value in vars(module).values() if isinstance(value, Check))


def expect(condition: object, seen: str) -> None:
    """Raise what was seen, unless `condition` holds.

    Raises:
        PromiseBroken: It does not.
    """
    if not condition:
        raise PromiseBroken(seen)


def expect_equal(expected: object, actual: object, what: str) -> None:
    """Raise what was seen, unless both are equal.

    Raises:
        PromiseBroken: They are not.
    """
    if expected != actual:
        raise PromiseBroken(f"{what}: expected {_short(expected)}, got {_short(actual)}")


def _short(value: object) -> str:
    text = repr(value)
    return (
        text if len(text) <= 300 else f"{text[:140]} ... {text[-140:]} ({len(text):,} characters)"
    )
