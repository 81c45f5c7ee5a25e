"""The checks as a test class: subclass it in the tests of a provider.

It needs pytest alone; the event loop is its own.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import pytest

from sandbox_core.testing.contract.model import LEVELS, Check, Level
from sandbox_core.testing.contract.run import run_check, select
from sandbox_core.testing.contract.subject import Backend, ClientNotMade, Subject
from sandbox_core.testing.contract_summary import PROPERTY, recorded

TEMPORAL_VARIABLE = "SANDBOX_CORE_TEST_TEMPORAL_ADDRESS"
"""Names a Temporal server for the durable checks; without it, they start a dev server."""


class ProviderContract:
    """Tests a provider against the contract, one test per promise.

    A complete test of a provider::

        class TestAcme(ProviderContract):
            provider_module = "acme_sandbox"

    Tests of abilities that the provider lacks are skipped, and say what its users lose. The run
    ends with the line that `sandbox-core check` ends with: how many promises are kept.
    """

    provider_module: ClassVar[str]
    """The module with the hook `sandbox_client_provider`, as the entry point names it."""

    levels: ClassVar[tuple[Level, ...]] = LEVELS
    """The levels to check."""

    known_failures: ClassVar[Mapping[str, str]] = {}
    """The reasons of broken promises, by check name. It is an error if one is kept."""

    @classmethod
    def contract_marks(cls, check: Check) -> Sequence[pytest.MarkDecorator]:
        """Return the marks of a check's test; override it to run some less often."""
        return ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Create one test per promise; called by pytest."""
        if "contract_check" not in metafunc.fixturenames:
            return
        unknown = self.known_failures.keys() - {check.name for check in select()}
        if unknown:
            raise pytest.UsageError(f"known_failures names no check: {', '.join(sorted(unknown))}")
        checks = [
            pytest.param(check, marks=self.contract_marks(check), id=check.name)
            for check in select(levels=self.levels)
        ]
        metafunc.parametrize("contract_check", checks)

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls) -> Backend:
        """Return facts about the backend; override it to start one, or to check more.

        It is called before the provider's client is created, so it may set environment variables.
        """
        return Backend()

    @pytest.fixture(scope="class")
    @classmethod
    def contract_loop(cls) -> Iterator[asyncio.AbstractEventLoop]:
        """The event loop of all checks, because they share a client."""
        loop = asyncio.new_event_loop()
        yield loop
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    @pytest.fixture(scope="class")
    @classmethod
    def contract_subject(
        cls, contract_loop: asyncio.AbstractEventLoop, contract_backend: Backend
    ) -> Iterator[Subject]:
        """The provider under test."""
        module = importlib.import_module(cls.provider_module)
        subject = Subject(
            provider=module.sandbox_client_provider(),
            module=cls.provider_module,
            backend=contract_backend,
            temporal=os.environ.get(TEMPORAL_VARIABLE),
        )
        yield subject
        contract_loop.run_until_complete(subject.__aexit__(None, None, None))

    def test_promise(
        self,
        contract_check: Check,
        contract_subject: Subject,
        contract_loop: asyncio.AbstractEventLoop,
        record_property: Callable[[str, object], None],
    ) -> None:
        """Test the promise of this parameter."""
        outcome = contract_loop.run_until_complete(
            run_check(contract_check, contract_subject, known_failures=self.known_failures)
        )
        record_property(PROPERTY, recorded(contract_subject.provider.name, outcome))
        if outcome.status == "skipped":
            pytest.skip(f"contract: {outcome.seen}")
        if outcome.status == "known":
            pytest.xfail(outcome.seen)
        if outcome.status == "warned":
            warnings.warn(
                f"{contract_check.name}: {contract_check.promise} Seen: {outcome.seen}. "
                "From the next release on, this breaks the contract.",
                stacklevel=1,
            )
            return
        if isinstance(outcome.error, ClientNotMade):
            if contract_subject.client_failed:
                pytest.skip("create_client() failed, as an earlier test says")
            contract_subject.client_failed = True
            raise outcome.error
        if outcome.status == "broken":
            raise AssertionError(
                f"{contract_check.promise} Seen: {outcome.seen}. It costs: {contract_check.cost}."
            ) from outcome.error
