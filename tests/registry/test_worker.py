"""A worker with `SandboxPlugin` and the installed providers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import cast

import pytest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from registry.distributions import (
    HOOK,
    Environment,
    Json,
    Plugin,
    module,
    plugin,
    provider,
)
from registry.reports import ConfigurationReport, RunReport, WorkerReport, worker_report
from temporalio.testing import ActivityEnvironment

from sandbox_core.errors import DuplicateProvider, ProviderLoad
from sandbox_core.providers import SandboxClientProvider
from sandbox_core.providers.activation import make_client
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import operations
from sandbox_core.worker.runtime import ProviderRuntime

PLUGINS = [
    plugin("healthy"),
    plugin("broken", "import acme_vendor_sdk"),
    plugin("keyless", module(provider("keyless", client="raise LookupError('no ACME_KEY')"), HOOK)),
    plugin("twin"),
    Plugin(name="twin", distribution="box-twin", source=module(provider("twin"), HOOK)),
]
TWIN = (
    "provider 'twin' is claimed by acme-twin 1.0 and by box-twin 1.0. The name is recorded in "
    "workflow histories, so the order of installation must not decide: uninstall all but one of "
    "them."
)
BROKEN = (
    "provider 'broken' (acme-broken 1.0, module acme_broken) cannot be imported: "
    "ModuleNotFoundError: No module named 'acme_vendor_sdk'. Reinstall it with its dependencies "
    "(pip "
    "install --upgrade acme-broken), or disable it with SANDBOX_CORE_DISABLED_PROVIDERS=broken."
)
_NO_KEY = "is installed but cannot be used on this worker: LookupError: no ACME_KEY"
KEYLESS = f"provider 'keyless' (acme-keyless 1.0) {_NO_KEY}"


def _configuration(*, passed: tuple[str, ...] = (), **environ: str) -> Mapping[str, Json]:
    return {"environ": environ, "passed": passed}


CONFIGURATIONS: Mapping[str, Json] = {
    "plain": _configuration(),
    "twin required": _configuration(SANDBOX_CORE_PROVIDERS="healthy,twin"),
    "broken required": _configuration(SANDBOX_CORE_PROVIDERS="broken"),
    "twin turned off": _configuration(SANDBOX_CORE_DISABLED_PROVIDERS="twin"),
    "healthy required": _configuration(SANDBOX_CORE_PROVIDERS="healthy"),
    "healthy passed": _configuration(passed=("healthy",)),
    "healthy passed twice": _configuration(
        passed=("healthy", "healthy"), SANDBOX_CORE_DISABLED_PROVIDERS="healthy"
    ),
    "healthy passed instead": _configuration(
        passed=("healthy",), SANDBOX_CORE_DISABLED_PROVIDERS="healthy,twin,broken"
    ),
}
USED = ("healthy", "twin", "broken", "keyless", "twin", "broken", "keyless")


@pytest.fixture(scope="module")
def report(new_environment: Callable[[], Environment], temporal_address: str) -> WorkerReport:
    environment = new_environment()
    environment.install(*PLUGINS)
    return worker_report(
        environment,
        {
            "address": temporal_address,
            "configurations": list(CONFIGURATIONS.values()),
            "use": USED,
        },
    )


@pytest.fixture(scope="module")
def configurations(report: WorkerReport) -> dict[str, ConfigurationReport]:
    return dict(zip(CONFIGURATIONS, report.configurations, strict=True))


def _uses(report: WorkerReport, name: str) -> list[RunReport]:
    return [use for used, use in zip(USED, report.uses, strict=True) if used == name]


class TestConfiguration:
    """Making a worker decides what it offers."""

    def test_a_name_that_cannot_be_used_is_offered_too(
        self, configurations: dict[str, ConfigurationReport], preinstalled: list[str]
    ) -> None:
        """Its activities are there to say why."""
        expected = sorted(["broken", "healthy", "keyless", "twin", *preinstalled])
        assert expected == configurations["plain"].offered

    def test_each_provider_that_does_not_load_is_one_warning(
        self, configurations: dict[str, ConfigurationReport]
    ) -> None:
        """With its distribution, its version and the cause."""
        expected = [
            f"sandbox provider broken cannot be used: {BROKEN}",
            f"sandbox provider twin cannot be used: {TWIN}",
        ]
        assert expected == configurations["plain"].warnings

    def test_what_is_turned_off_is_not_loaded(
        self, configurations: dict[str, ConfigurationReport], preinstalled: list[str]
    ) -> None:
        """It is not offered and not warned about."""
        expected = ConfigurationReport(
            offered=sorted(["broken", "healthy", "keyless", *preinstalled]),
            warnings=[f"sandbox provider broken cannot be used: {BROKEN}"],
        )
        assert expected == configurations["twin turned off"]

    def test_an_allow_list_leaves_only_what_it_names(
        self, configurations: dict[str, ConfigurationReport]
    ) -> None:
        """The broken ones are no concern then."""
        expected = ConfigurationReport(offered=["healthy"], warnings=[])
        assert expected == configurations["healthy required"]

    @pytest.mark.parametrize(
        ("configuration", "error", "message"),
        [
            ("twin required", "DuplicateProvider", TWIN),
            ("broken required", "ProviderLoad", BROKEN),
        ],
    )
    def test_a_required_provider_that_does_not_load_is_an_error(
        self,
        configurations: dict[str, ConfigurationReport],
        configuration: str,
        error: str,
        message: str,
    ) -> None:
        """There is no worker without it, and one message is enough."""
        expected = ConfigurationReport(error=error, message=message, warnings=[])
        assert expected == configurations[configuration]


class TestPassedProviders:
    """An application can pass providers of its own."""

    def test_one_that_is_also_installed_is_an_error(
        self, configurations: dict[str, ConfigurationReport]
    ) -> None:
        """Neither is preferred."""
        configuration = configurations["healthy passed"]
        expected = (
            "provider 'healthy' was passed to SandboxPlugin and is also installed; remove one of "
            "them."
        )
        assert ("DuplicateProvider", expected) == (configuration.error, configuration.message)

    def test_one_that_is_passed_twice_is_an_error(
        self, configurations: dict[str, ConfigurationReport]
    ) -> None:
        """That is not the fault of an installation."""
        configuration = configurations["healthy passed twice"]
        expected = "provider 'healthy' was passed to SandboxPlugin twice; remove one of them."
        assert ("DuplicateProvider", expected) == (configuration.error, configuration.message)

    def test_one_takes_the_place_of_an_installed_one_that_is_turned_off(
        self, configurations: dict[str, ConfigurationReport], preinstalled: list[str]
    ) -> None:
        """What is off claims nothing."""
        expected = ConfigurationReport(
            offered=sorted(["healthy", "keyless", *preinstalled]), warnings=[]
        )
        assert expected == configurations["healthy passed instead"]


class TestUse:
    """A running worker, and workflows that ask it for providers."""

    def test_a_healthy_provider_works_beside_broken_ones(self, report: WorkerReport) -> None:
        """Its sandbox runs a command."""
        (use,) = _uses(report, "healthy")
        expected = ("healthy", None, {1})
        assert expected == (use.result, use.message, set(use.attempts))

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            ("twin", "DuplicateProvider", TWIN),
            ("broken", "ProviderLoad", BROKEN),
            ("keyless", "ProviderLoad", KEYLESS),
        ],
    )
    def test_a_workflow_fails_with_the_cause_in_one_attempt(
        self, report: WorkerReport, name: str, error: str, message: str
    ) -> None:
        """One activity, tried once, every time that a workflow asks."""
        expected = [(error, message, [1])] * 2
        uses = _uses(report, name)
        assert expected == [(use.error, use.message, use.attempts) for use in uses]

    @pytest.mark.parametrize("name", ["twin", "broken", "keyless"])
    def test_the_error_does_not_grow_with_every_workflow(
        self, report: WorkerReport, name: str
    ) -> None:
        """Its stack trace, which is a part of the history, stays the same."""
        first, second = _uses(report, name)
        assert first.stack_trace == second.stack_trace


class TestActivation:
    """A provider whose client cannot be made."""

    def test_the_worker_starts_and_warns_once_with_the_cause(self, report: WorkerReport) -> None:
        """The one warning is about what is missing."""
        about = [message for message in report.warnings.started if "'keyless'" in message]
        assert [f"sandbox {KEYLESS}"] == about

    def test_it_is_not_logged_before_the_worker_runs(self, report: WorkerReport) -> None:
        """Making a worker makes no client."""
        expected = [
            f"sandbox provider broken cannot be used: {BROKEN}",
            f"sandbox provider twin cannot be used: {TWIN}",
        ]
        assert expected == report.warnings.configured

    def test_it_is_not_logged_again_when_it_is_used(self, report: WorkerReport) -> None:
        """Workflows that ask for it add nothing to the log."""
        assert not report.warnings.used


class TestDiscoveryInAWorkflow:
    """What is installed must not matter to a workflow."""

    def test_it_is_refused(self, report: WorkerReport) -> None:
        """The workflow fails with what to do instead, and no activity ran."""
        expected = RunReport(
            error="ProviderError",
            message=(
                "providers are discovered when a worker starts, never in a workflow: a workflow "
                "names its provider, as in temporal_sandbox_client('daytona')."
            ),
            attempts=[],
        )
        assert expected == report.discovered_in_workflow


class TestProviderRuntime:
    """The stand-in for a provider that cannot be used."""

    def test_it_has_the_activities_of_any_provider(self) -> None:
        """One for each operation."""
        runtime = ProviderRuntime(DuplicateProvider(TWIN), name="twin")
        expected = [activity_name("twin", operation.name) for operation in operations()]
        definitions = (
            getattr(activity, "__temporal_activity_definition").name
            for activity in runtime.activities()
        )
        assert expected == list(definitions)

    async def test_each_of_them_raises_the_error(self) -> None:
        """Whatever is asked of the provider."""
        runtime = ProviderRuntime(DuplicateProvider(TWIN), name="twin")
        for activity, operation in zip(runtime.activities(), operations(), strict=True):
            arguments = [{}, b""] if operation.takes_bytes else [{}]
            async with runtime.active():
                with pytest.raises(DuplicateProvider) as raised:
                    await ActivityEnvironment().run(activity, *arguments)
            assert TWIN == raised.value.message

    async def test_a_required_provider_without_a_client_stops_the_worker(self) -> None:
        """Its name in SANDBOX_CORE_PROVIDERS says that the worker is of no use without it."""
        runtime = ProviderRuntime(_Keyless(), required=True)
        with pytest.raises(ProviderLoad) as raised:
            async with runtime.active():
                pytest.fail("it was activated")
        assert f"provider 'keyless' {_NO_KEY}" == raised.value.message

    @pytest.mark.parametrize(
        ("returned", "problem"),
        [
            (None, "its create_client returned None, which is not an instance of "),
            ("waits", "its create_client did not return within 0.2 s. It must not wait for the "),
            ("awaitable", "its create_client is asynchronous. It must be an ordinary function "),
        ],
    )
    async def test_what_is_no_client_is_one_error_in_time(
        self, returned: str | None, problem: str
    ) -> None:
        """And nothing is called on it."""
        within_s = 0.2 if returned == "waits" else 60
        with pytest.raises(ProviderLoad) as raised:
            await make_client(_Odd(returned), "provider 'odd' (acme-odd 1.0)", within_s=within_s)
        assert raised.value.message.startswith(
            f"provider 'odd' (acme-odd 1.0) is installed but cannot be used on this worker: "
            f"{problem}"
        )

    async def test_a_client_finds_the_event_loop_of_the_worker(self) -> None:
        """Some are made for the one in which they are used."""
        found: list[asyncio.AbstractEventLoop] = []

        class Bound(_Keyless):
            def create_client(self) -> UnixLocalSandboxClient:
                found.append(asyncio.get_running_loop())
                return UnixLocalSandboxClient()

        assert isinstance(await make_client(Bound(), "provider"), UnixLocalSandboxClient)
        assert [asyncio.get_running_loop()] == found


class _Keyless(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    name = "keyless"
    summary = "Has no key"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions

    def create_client(self) -> UnixLocalSandboxClient:
        raise LookupError("no ACME_KEY")


class _Odd(_Keyless):
    def __init__(self, returned: str | None) -> None:
        self._returned = returned

    def create_client(self) -> UnixLocalSandboxClient:
        if self._returned == "waits":
            threading.Event().wait(5)
        made = asyncio.sleep(0) if self._returned == "awaitable" else self._returned
        return cast("UnixLocalSandboxClient", made)
