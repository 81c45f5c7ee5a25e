"""The two settings that select providers, with really installed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from registry.distributions import Environment, plugin
from registry.reports import SelectionReport, registry_report

from sandbox_core.errors import UnknownProvider
from sandbox_core.providers import client_provider
from sandbox_core.wire.published import how_to_install
from sandbox_core.worker import SandboxPlugin

REQUIRED = "SANDBOX_CORE_PROVIDERS"
DISABLED = "SANDBOX_CORE_DISABLED_PROVIDERS"

ENVIRONS: Mapping[str, Mapping[str, str]] = {
    "neither": {},
    "both empty": {REQUIRED: "", DISABLED: ""},
    "only spaces and commas": {REQUIRED: " ", DISABLED: ",, "},
    "a list of nothing": {REQUIRED: " , ,"},
    "one allowed": {REQUIRED: "beta"},
    "stray commas and spaces": {REQUIRED: " beta ,, alpha,", DISABLED: ", alpha "},
    "one disabled": {DISABLED: "beta"},
    "both name it": {REQUIRED: "alpha,beta", DISABLED: "beta"},
    "all that is allowed is disabled": {REQUIRED: "beta", DISABLED: "beta"},
    "another is disabled": {DISABLED: "omega"},
    "another is required": {REQUIRED: "alpha,omega"},
    "others are required": {REQUIRED: "psi,alpha,omega"},
    "another is required and disabled": {REQUIRED: "alpha,omega", DISABLED: "omega"},
    "another spelling is required": {REQUIRED: "Alpha"},
}


@pytest.fixture(scope="module")
def selections(new_environment: Callable[[], Environment]) -> dict[str, SelectionReport]:
    """What is selected, by the names of the environs."""
    environment = new_environment()
    environment.install(plugin("alpha"), plugin("beta"), plugin("gamma"))
    report = registry_report(environment, list(ENVIRONS.values()))
    return dict(zip(ENVIRONS, report.selections, strict=True))


@pytest.fixture(scope="module")
def installed(preinstalled: list[str]) -> list[str]:
    """All that is installed in the environment."""
    return sorted(["alpha", "beta", "gamma", *preinstalled])


class TestNoChoice:
    """Without a name in either variable everything is enabled."""

    @pytest.mark.parametrize("environ", ["neither", "both empty", "only spaces and commas"])
    def test_everything_is_enabled_and_nothing_required(
        self, selections: dict[str, SelectionReport], installed: list[str], environ: str
    ) -> None:
        """A variable that is empty is like one that is not set."""
        assert SelectionReport(enabled=installed) == selections[environ]

    def test_a_list_without_a_name_is_an_error(
        self, selections: dict[str, SelectionReport]
    ) -> None:
        """Somebody meant to choose, and all would be the opposite."""
        expected = (
            "SANDBOX_CORE_PROVIDERS: must be a list of one or more names of providers, written as "
            "a,b"
        )
        report = SelectionReport(error="ConfigError", message=expected)
        assert report == selections["a list of nothing"]


class TestTheAllowList:
    """SANDBOX_CORE_PROVIDERS allows only what it names, and requires it."""

    def test_only_what_it_names_is_enabled(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """Everything else is turned off."""
        expected = SelectionReport(
            enabled=["beta"],
            disabled=[name for name in installed if name != "beta"],
            required=["beta"],
        )
        assert expected == selections["one allowed"]

    def test_stray_commas_and_spaces_mean_nothing(
        self, selections: dict[str, SelectionReport]
    ) -> None:
        """Names are what is left between them."""
        selection = selections["stray commas and spaces"]
        expected = ["beta"]
        assert expected == selection.enabled
        assert expected == selection.required

    def test_a_name_that_is_not_installed_is_an_error(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """It says what is installed, and what to do."""
        expected = (
            f"SANDBOX_CORE_PROVIDERS requires 'omega', which is not installed here. "
            f"Installed: {_quoted(installed)}. Install it ({how_to_install('omega')}) or take "
            f"it off the list."
        )
        assert _unknown(expected) == selections["another is required"]

    def test_all_names_that_are_not_installed_are_in_one_error(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """Nobody has to find them one after the other."""
        expected = (
            f"SANDBOX_CORE_PROVIDERS requires 'omega', 'psi', which is not installed here. "
            f"Installed: {_quoted(installed)}. Install it ({how_to_install('omega')}) or take "
            f"it off the list."
        )
        assert _unknown(expected) == selections["others are required"]

    def test_names_are_compared_as_they_are(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """Another spelling is another name, never normalised."""
        expected = (
            f"SANDBOX_CORE_PROVIDERS requires 'Alpha', which is not installed here. "
            f"Installed: {_quoted(installed)}. Install it ({how_to_install('Alpha')}) or take "
            f"it off the list."
        )
        assert _unknown(expected) == selections["another spelling is required"]


class TestTheDenyList:
    """SANDBOX_CORE_DISABLED_PROVIDERS turns off, and wins."""

    def test_what_it_names_is_turned_off(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """Everything else stays."""
        expected = SelectionReport(
            enabled=[name for name in installed if name != "beta"], disabled=["beta"]
        )
        assert expected == selections["one disabled"]

    def test_it_wins_over_the_allow_list(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """What both name is neither enabled nor required."""
        expected = SelectionReport(
            enabled=["alpha"],
            disabled=[name for name in installed if name != "alpha"],
            required=["alpha"],
        )
        assert expected == selections["both name it"]

    def test_an_allow_list_that_it_empties_allows_nothing_else(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """Turning off the last allowed provider turns on no other."""
        expected = SelectionReport(disabled=installed)
        assert expected == selections["all that is allowed is disabled"]

    def test_a_required_name_that_is_turned_off_need_not_be_installed(
        self, selections: dict[str, SelectionReport]
    ) -> None:
        """There is nothing to miss."""
        selection = selections["another is required and disabled"]
        expected = ["alpha"]
        assert expected == selection.enabled
        assert expected == selection.required

    def test_a_name_that_is_not_installed_is_no_error(
        self, selections: dict[str, SelectionReport], installed: list[str]
    ) -> None:
        """What is not there is off already."""
        assert SelectionReport(enabled=installed) == selections["another is disabled"]


def _unknown(message: str) -> SelectionReport:
    return SelectionReport(error="UnknownProvider", message=message)


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


class TestAdvice:
    """How a provider that is missing is installed."""

    def test_it_is_a_command_only_for_what_is_published_here(self) -> None:
        """Anybody may publish a distribution whose name ends in that of a workflow's provider."""
        assert "pip install sandbox-docker sandbox-local" == how_to_install("docker", "local")
        assert "see the documentation of its author" == how_to_install("local", "loca")


def test_what_the_plugin_was_passed_may_be_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no distribution."""
    monkeypatch.setenv(REQUIRED, "local,mine")
    mine = client_provider("mine", UnixLocalSandboxClient, UnixLocalSandboxClientOptions)
    runtimes = SandboxPlugin(providers=[mine])._offer.load()

    assert ["local", "mine"] == sorted(runtime.name for runtime in runtimes)
    with pytest.raises(UnknownProvider, match="requires 'mine', which is not installed here"):
        SandboxPlugin()._offer.load()
