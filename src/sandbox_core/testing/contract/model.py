"""Defines checks: one promise of a provider, its test, and the cost to users if it is broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from sandbox_core.providers.contract import LOST_WITHOUT

if TYPE_CHECKING:
    from sandbox_core.testing.contract.subject import Subject

Level: TypeAlias = Literal["package", "session", "labels", "durable"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The levels in the order of their execution: each takes longer than the one before."""


NO_TERMINALS = (
    "supports_pty() is false: the shell tool runs each command to its end, so programs that ask "
    "questions cannot be answered"
)
"""Why what concerns terminals does not apply."""


def lost_without(ability: str) -> str:
    """Return why checks that need an ability are skipped: what users lose without it."""
    return f"no `{ability}`: {LOST_WITHOUT.get(ability, 'commands take longer')}"


class PromiseBroken(AssertionError):
    """A check observed something other than what the contract promises."""


class NotApplicable(Exception):
    """A check does not apply to this sandbox; the message says why, and what users lose."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One promise and its test."""

    name: str
    """The module and the function of the test: ``commands.streams_come_apart``."""

    level: Level
    promise: str
    """The promise in one sentence."""

    cost: str
    """What users lose if it is broken."""

    needs: tuple[str, ...]
    """The abilities that it requires, as named by `sandbox-core providers`."""

    slow: bool
    """Whether it takes longer than about ten seconds with a local backend."""

    provisional: bool
    """Whether it is new: for one release, breaking it causes only a warning."""

    function: Callable[[Subject], Awaitable[None]]

    async def __call__(self, subject: Subject) -> None:
        """Test the promise.

        Raises:
            PromiseBroken: It is broken; with what was observed.
            NotApplicable: It does not apply to this sandbox.
            Exception: The provider raised an error where it must not.
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
    """Make the decorated function a check. Its docstring is the promise."""

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
    """Iterate over the checks of a module in the order of definition."""
    return (value for value in vars(module).values() if isinstance(value, Check))


def expect(condition: object, seen: str) -> None:
    """Check that `condition` holds.

    Raises:
        PromiseBroken: It does not; with `seen` as the message.
    """
    if not condition:
        raise PromiseBroken(seen)


def expect_equal(expected: object, actual: object, what: str) -> None:
    """Check that both values are equal.

    Raises:
        PromiseBroken: They are not.
    """
    if expected != actual:
        raise PromiseBroken(f"{what}: expected {_short(expected)}, got {_short(actual)}")


def told(error: BaseException) -> str:
    """Return the messages of an error and its causes: a `SandboxError` alone may say little."""
    text = str(error) or type(error).__name__
    said = text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
    return said if error.__cause__ is None else f"{said}, because of {told(error.__cause__)}"


def raised_at(error: BaseException, packages: Collection[str]) -> str | None:
    """Return the file and line in one of `packages` where an error was raised, or None.

    The place of a cause has precedence over that of its effect, and inner frames over outer ones.
    """
    cause = error.__cause__ or error.__context__
    place = None if cause is None else raised_at(cause, packages)
    if place is not None:
        return place
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] in packages:
            place = f"{_relative(Path(frame.f_code.co_filename))}:{line}"
    return place


def _relative(file: Path) -> Path:
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def _short(value: object) -> str:
    text = repr(value)
    return (
        text if len(text) <= 300 else f"{text[:140]} ... {text[-140:]} ({len(text):,} characters)"
    )
