"""Discovery, before anything is imported."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from typing import IO

import pytest
from registry.distributions import Environment, Plugin, plugin
from registry.reports import CandidateReport, ProviderReport, RegistryReport, registry_report

ALPHA = plugin("alpha")
BETA = plugin("beta", version="2.5.dev1")

_NewEnvironment = Callable[[], Environment]


@pytest.fixture(scope="module")
def environment(new_environment: _NewEnvironment) -> Environment:
    """Both plugins, with an older or a newer version of each further down the path."""
    environment = new_environment()
    environment.install(BETA, ALPHA)
    environment.install_last(plugin("alpha", version="2.0"), plugin("beta", version="2.0"))
    return environment


@pytest.fixture(scope="module")
def report(environment: Environment) -> RegistryReport:
    return registry_report(environment)


class TestDiscovery:
    """Metadata is read, and nothing else."""

    def test_each_claim_is_known_with_its_module_distribution_and_version(
        self, report: RegistryReport
    ) -> None:
        """A candidate says where it comes from."""
        expected = CandidateReport(
            name="beta", module="acme_beta", distribution="acme-beta", version="2.5.dev1"
        )
        assert expected == report.candidate("beta")

    def test_claims_are_sorted_by_name(
        self, report: RegistryReport, preinstalled: list[str]
    ) -> None:
        """The order of installation does not show."""
        expected = sorted(["alpha", "beta", *preinstalled])
        assert expected == [candidate.name for candidate in report.candidates]

    def test_nothing_is_imported(self, report: RegistryReport) -> None:
        """No plugin, nothing of the Agents SDK: the reader of metadata loads parts of itself."""
        packages = {name.partition(".")[0] for name in report.imported_by_discover}
        reader = {"importlib_metadata", "zipp", *sys.stdlib_module_names}
        assert set() == packages - reader


class TestADistributionTwiceOnThePath:
    """It counts once, as the one that Python would import."""

    @pytest.mark.parametrize("expected", [ALPHA, BETA], ids=["older", "newer"])
    def test_the_first_on_the_path_wins(
        self, environment: Environment, report: RegistryReport, expected: Plugin
    ) -> None:
        """It is no duplicate, and the version does not matter."""
        assert expected.version == report.candidate(expected.name).version
        file = environment.site_packages / expected.module / "__init__.py"
        assert (
            ProviderReport(file=file, summary="Sandboxes at Acme")
            == (report.providers[expected.name])
        )


@pytest.fixture(scope="module")
def leftovers(new_environment: _NewEnvironment) -> RegistryReport:
    environment = new_environment()
    environment.install(ALPHA, BETA)
    # pip moves what it removes out of the way like this, and an interruption leaves it there.
    shutil.copytree(
        environment.dist_info(ALPHA),
        environment.site_packages / "~cme_alpha-1.0.dist-info",
    )
    (environment.dist_info(BETA) / "METADATA").unlink()
    (environment.dist_info(ALPHA) / "direct_url.json").write_text("{cut")
    return registry_report(environment)


class TestLeftovers:
    """What an interrupted installation or uninstallation left behind does no harm."""

    def test_a_folder_that_pip_moved_away_claims_no_name(self, leftovers: RegistryReport) -> None:
        """The distribution that is installed is the only one."""
        expected = CandidateReport(
            name="alpha", module="acme_alpha", distribution="acme-alpha", version="1.0"
        )
        assert expected == leftovers.candidate("alpha")
        assert leftovers.providers["alpha"].error is None

    def test_metadata_that_cannot_be_read_hides_no_other_provider(
        self, leftovers: RegistryReport, preinstalled: list[str]
    ) -> None:
        """A folder without METADATA is passed over."""
        expected = sorted(["alpha", *preinstalled])
        assert expected == [candidate.name for candidate in leftovers.candidates]


class TestLookingAgain:
    """Discovery is never cached."""

    def test_what_was_installed_meanwhile_is_found(
        self, new_environment: _NewEnvironment, preinstalled: list[str]
    ) -> None:
        """A running process sees it, and can load it."""
        environment = new_environment()
        environment.install(ALPHA)
        with environment.start("report_twice.py") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            before = _names(process.stdout)
            environment.install(BETA)
            process.stdin.write("again\n")
            process.stdin.flush()
            after = _names(process.stdout)
            process.stdin.close()
            loaded = _names(process.stdout)
        assert sorted(["alpha", *preinstalled]) == before
        assert sorted(["alpha", "beta", *preinstalled]) == after
        assert {"alpha", "beta"} <= set(loaded)


def _names(lines: IO[str]) -> list[str]:
    names: list[str] = json.loads(lines.readline())
    return names
