"""A pytest plugin that runs each of the SDK's tests in its own workflow.

The worker is in this process, so that a test can also replace what the real session uses.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from _pytest.outcomes import OutcomeException
from sdk.stand_ins import STAND_INS, WRAPPERS
from support import running_worker, unique
from temporalio import workflow
from temporalio.client import Client

from sandbox_core.worker import SandboxPlugin

ADDRESS: Final = "SDK_TESTS_TEMPORAL_ADDRESS"
OUTCOMES: Final = "SDK_TESTS_OUTCOMES"

# One of the files needs it to be imported; none of the tests that are run here pass by it.
_inline_snapshot = ModuleType("inline_snapshot")
vars(_inline_snapshot)["snapshot"] = lambda value: value

_tests: dict[str, Callable[[], Awaitable[object]]] = {}
_errors: dict[str, BaseException] = {}


@workflow.defn(sandboxed=False)
class RunSdkTest:
    """Runs a test of this process."""

    @workflow.run
    async def run(self, test: str) -> None:
        try:
            await _tests[test]()
        except (Exception, OutcomeException) as error:  # noqa: BLE001 - pytest is told of it
            _errors[test] = error


class _InWorkflow:
    def __init__(self, address: str, outcomes: Path) -> None:
        self._address = address
        self._file = outcomes
        self._outcomes: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._running = AsyncExitStack()

    def pytest_sessionstart(self) -> None:
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self._client = await Client.connect(self._address)
        plugin = SandboxPlugin(local_sources=[Path("/")])
        worker = running_worker(self._client, RunSdkTest, plugins=[plugin])
        self._queue = await self._running.enter_async_context(worker)

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._outcomes), encoding="utf-8")
        # A test that waited for a thread in its workflow has left an activity waiting for it.
        with suppress(asyncio.TimeoutError):
            self._loop.run_until_complete(asyncio.wait_for(self._running.aclose(), 10))

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Function]
    ) -> None:
        """Replace the names in the tests' modules, and leave only the tests that come upon one."""
        for module in {item.module for item in items}:
            for name, stand_in in {**STAND_INS, **WRAPPERS}.items():
                if hasattr(module, name):
                    setattr(module, name, stand_in)
        chosen = [item for item in items if _asks_a_stand_in(item.function)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        _tests[pyfuncitem.nodeid] = lambda: pyfuncitem.obj(**arguments)
        self._loop.run_until_complete(self._run(pyfuncitem.nodeid))
        if pyfuncitem.nodeid in _errors:
            raise _errors[pyfuncitem.nodeid]
        return True

    async def _run(self, test: str) -> None:
        await self._client.execute_workflow(
            RunSdkTest.run,
            test,
            id=unique("sdk"),
            task_queue=self._queue,
            execution_timeout=timedelta(seconds=60),
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._outcomes[report.nodeid] = report.outcome


def _asks_a_stand_in(test: Callable[..., object]) -> bool:
    """Tell whether a test, or a function of its module that it calls, names a stand-in."""
    if not inspect.iscoroutinefunction(test):
        return False  # What awaits nothing asks a session nothing.
    seen: set[Callable[..., object]] = set()
    unseen: set[Callable[..., object]] = {test}
    while unseen:
        function = unseen.pop()
        seen.add(function)
        named = [*inspect.getclosurevars(function).globals.values()]
        if any(value in STAND_INS.values() for value in named if inspect.isclass(value)):
            return True
        functions = {value for value in named if inspect.isfunction(value)}
        unseen |= {value for value in functions if value.__module__ == test.__module__} - seen
    return False


def pytest_configure(config: pytest.Config) -> None:
    plugin = _InWorkflow(os.environ[ADDRESS], Path(os.environ[OUTCOMES]))
    config.pluginmanager.register(plugin, "in-workflow")
    sys.modules.setdefault(_inline_snapshot.__name__, _inline_snapshot)
