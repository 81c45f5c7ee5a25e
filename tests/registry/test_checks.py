"""Mistakes in a provider that can be imported, and their messages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from registry.distributions import HOOK, Environment, Plugin, module, plugin, provider
from registry.reports import ProviderReport, RegistryReport, registry_report

_MODELS = """
from typing import Literal
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import SecretStr
"""


def _state(name: str, field: str) -> str:
    return f"class {name}(SandboxSessionState):\n    type: {field}"


def _options(name: str, kind: str) -> str:
    return f"class {name}(BaseSandboxClientOptions):\n    type: Literal['{kind}'] = '{kind}'"


_PARTLY = """
    def labelled(self, client, labels):
        return client
    def exists(self, client, sandbox_id):
        return True
    async def check(self):
        return None
"""

PLUGINS = [
    plugin(
        "asynchronous",
        module(provider("asynchronous").replace("    def create", "    async def create"), HOOK),
    ),
    plugin("no-options", module(provider("no-options", options_type="dict"), HOOK)),
    plugin(
        "box",
        module(
            _MODELS, _state("BoxState", "Literal['container'] = 'container'"), provider("box"), HOOK
        ),
    ),
    plugin(
        "pod",
        module(
            _MODELS, _state("PodState", "Literal['container'] = 'container'"), provider("pod"), HOOK
        ),
    ),
    plugin(
        "early",
        module(
            _MODELS,
            _state("EarlyState", "Literal['unix_local'] = 'unix_local'"),
            provider("early"),
            HOOK,
        ),
    ),
    plugin(
        "greedy",
        module(
            _MODELS,
            _options("GreedyOptions", "unix_local"),
            provider("greedy", options_type="GreedyOptions"),
            HOOK,
        ),
    ),
    plugin("partly", module(provider("partly") + _PARTLY, HOOK)),
    plugin(
        "stateless",
        module(_MODELS, _state("LostState", "str = 'lost'"), provider("stateless"), HOOK),
    ),
    plugin(
        "secret",
        module(
            _MODELS,
            _options("SecretOptions", "secret") + "\n    api_key: SecretStr | None = None",
            provider("secret", options_type="SecretOptions"),
            HOOK,
        ),
    ),
    Plugin(
        name="unread",
        distribution="acme-unread",
        source=module(provider("unread"), HOOK),
        group="sandbox-core.provider",
    ),
]


@pytest.fixture(scope="module")
def report(new_environment: Callable[[], Environment]) -> RegistryReport:
    environment = new_environment()
    environment.install(*PLUGINS)
    return registry_report(environment)


def _which(name: str) -> str:
    return f"provider {name!r} (acme-{name} 1.0, module acme_{name.replace('-', '_')})"


def _error(message: str) -> ProviderReport:
    return ProviderReport(error="ProviderLoad", message=message)


class TestMistakes:
    """A provider that cannot be used."""

    def test_a_client_that_has_to_be_awaited(self, report: RegistryReport) -> None:
        """It is told at load, and not by a worker that dies."""
        expected = _error(
            f"{_which('asynchronous')} has an asynchronous create_client. It must be an ordinary "
            f"function that returns the client; await in the client's operations instead."
        )
        assert expected == report.providers["asynchronous"]

    def test_options_that_are_not_the_sdks(self, report: RegistryReport) -> None:
        """They could not travel."""
        expected = _error(
            f"{_which('no-options')} sets options_type to <class 'dict'>, not a subclass of "
            f"BaseSandboxClientOptions."
        )
        assert expected == report.providers["no-options"]

    def test_a_state_that_another_distribution_has_too(self, report: RegistryReport) -> None:
        """Neither is preferred: the order of imports must not decide."""
        expected = (
            "has a session state of type 'container', which another distribution claims too: "
            "acme_box.BoxState (acme-box 1.0) and acme_pod.PodState (acme-pod 1.0). The type is "
            "recorded in workflow histories, so its author must choose a unique one, such as "
            "{name!r}. Until then, disable one of them with SANDBOX_CORE_DISABLED_PROVIDERS."
        )
        for name in ("box", "pod"):
            message = f"{_which(name)} {expected.format(name=name)}"
            assert _error(message) == report.providers[name]

    def test_a_state_that_the_sdk_has_too(self, report: RegistryReport) -> None:
        """The SDK's own stays what it is, and `local` with it."""
        early = report.providers["early"]
        assert early.message is not None
        assert early.message.startswith(
            f"{_which('early')} has a session state of type 'unix_local', which another "
            f"distribution claims too: "
            f"agents.sandbox.sandboxes.unix_local.UnixLocalSandboxSessionState (the "
            f"Agents SDK) and acme_early.EarlyState (acme-early 1.0)."
        )
        assert report.providers["local"].error is None

    def test_options_that_the_sdk_has_too(self, report: RegistryReport) -> None:
        """It is the third party's that cannot be imported, and not `local`."""
        expected = _error(
            f"{_which('greedy')} cannot be imported: TypeError: sandbox client options type "
            f"`unix_local` is already registered by UnixLocalSandboxClientOptions. The type is "
            f"that of module agents.sandbox.sandboxes.unix_local. It is recorded in workflow "
            f"histories, so its author must choose a unique one. Until then, disable one of them "
            f"with SANDBOX_CORE_DISABLED_PROVIDERS."
        )
        assert expected == report.providers["greedy"]


class TestShortcomings:
    """A provider that can be used, although something of it does not work."""

    def test_an_ability_that_is_half_there(self, report: RegistryReport) -> None:
        """Nobody would look for it in the table of abilities."""
        which = _which("partly")
        assert [
            f"{which} has a method 'exists' that is not `async def`, as the contract requires.",
            f"{which} implements labelled of the ability 'labels', but not find: the ability is "
            f"ignored.",
            f"{which} has a method 'check' that does not take (client).",
        ] == report.providers["partly"].shortcomings

    def test_a_state_that_the_sdk_does_not_register(self, report: RegistryReport) -> None:
        """Workflows could not read it."""
        assert [
            f"{_which('stateless')} has a session state acme_stateless.LostState without `type: "
            f'Literal["..."] = "..."`: the Agents SDK does not register it, so no workflow can '
            f"read it."
        ] == report.providers["stateless"].shortcomings

    def test_an_option_that_is_a_secret(self, report: RegistryReport) -> None:
        """It would arrive as asterisks."""
        assert [
            f"{_which('secret')} has a secret option 'api_key'. It would arrive as '**********', "
            f"and secrets must not be in workflow histories: read credentials in create_client, "
            f"from the worker's environment."
        ] == report.providers["secret"].shortcomings


class TestGroups:
    """An entry point that nobody reads."""

    def test_a_misspelt_group_is_named(self, report: RegistryReport) -> None:
        """With the distribution, and the right one."""
        assert [
            "acme-unread 1.0 names a provider 'unread' in the entry-point group "
            "'sandbox-core.provider', which nothing reads: the group is 'sandbox_core.providers'."
        ] == report.misspelt_groups
