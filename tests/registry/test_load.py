"""Faults of plugins, and their messages.

All plugins are installed into one environment, so each test also shows that none disturbs another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from registry.distributions import HOOK, Environment, Plugin, module, plugin, provider
from registry.reports import ProviderReport, RegistryReport, registry_report

from sandbox_core.providers import Candidate, FailedProvider, SandboxClientProvider, load

RETURNED = (
    "from its hook 'sandbox_client_provider'. It must return an instance of a subclass of "
    "sandbox_core.providers.SandboxClientProvider."
)
HEALTHY = plugin("healthy")
STALE = plugin("stale")
TYPO = "def broken(:"

BROKEN = [
    # Not importable.
    plugin("raises", "raise RuntimeError('no licence for Acme.')"),
    plugin("silent", "raise RuntimeError"),
    plugin("needs-more", "import acme_vendor_sdk"),
    plugin("typo", TYPO),
    # Wrong hooks.
    plugin("misspelt", module(provider("misspelt"), HOOK.replace("provider()", "providr()"))),
    plugin("no-hook", module(provider("no-hook"))),
    plugin("unmarked", module(provider("unmarked"), HOOK.replace("@hookimpl", ""))),
    plugin("argument", module(provider("argument"), HOOK.replace("provider()", "provider(env)"))),
    plugin("hook-raises", module(HOOK)),
    plugin("abstract", module("class Provider(SandboxClientProvider): pass", HOOK)),
    plugin("nothing", module(HOOK.replace("Provider()", "None"))),
    plugin("class", module(provider("class"), HOOK.replace("Provider()", "Provider"))),
    plugin("other", module("class Provider: name = 'other'", HOOK)),
    plugin("later", module(provider("later"), HOOK.replace("def ", "async def "))),
    # Wrong providers.
    plugin("renamed", module(provider("named"), HOOK)),
    Plugin(name="Acme_Box", distribution="acme-box", source=module(provider("Acme_Box"), HOOK)),
    plugin("incomplete", module(provider("incomplete", without="options_type"), HOOK)),
    plugin("bare", module("class Provider(SandboxClientProvider): create_client = None", HOOK)),
    plugin(
        "secretive", module(provider("secretive", summary="property(lambda self: 1 / 0)"), HOOK)
    ),
    plugin("future", module(provider("future", api_version="2"), HOOK)),
    plugin(
        "far-future",
        module(provider("far-future", api_version="3", without="options_type"), HOOK),
    ),
    # Two claims to one name.
    plugin("twin"),
    Plugin(name="twin", distribution="box-twin", version="0.2", source=module(HOOK)),
]


@pytest.fixture(scope="module")
def installed(new_environment: Callable[[], Environment]) -> Environment:
    environment = new_environment()
    environment.install(HEALTHY, *BROKEN)
    return environment


@pytest.fixture(scope="module")
def stale_tree(installed: Environment) -> Path:
    """An editable install's source, which is not there any more."""
    tree = installed.install_editable(STALE)
    shutil.rmtree(tree)
    return tree


@pytest.fixture(scope="module")
def report(installed: Environment, stale_tree: Path) -> RegistryReport:
    return registry_report(installed)


def _load_error(message: str) -> ProviderReport:
    return ProviderReport(error="ProviderLoad", message=message)


class TestTheOthers:
    """One broken plugin is nobody else's problem."""

    def test_a_healthy_plugin_loads_beside_all_the_broken_ones(
        self, report: RegistryReport, installed: Environment
    ) -> None:
        """It is imported from where it is installed."""
        expected = ProviderReport(
            file=installed.site_packages / "acme_healthy" / "__init__.py",
            summary="Sandboxes at Acme",
        )
        assert expected == report.providers["healthy"]

    def test_every_installed_name_has_a_result(
        self, report: RegistryReport, preinstalled: list[str]
    ) -> None:
        """None hides."""
        names = {each.name for each in (HEALTHY, STALE, *BROKEN)}
        assert names | set(preinstalled) == set(report.providers)


class TestImport:
    """A module that cannot be imported."""

    def test_it_raises(self, report: RegistryReport) -> None:
        """The cause is there, and no full stop twice."""
        expected = _load_error(
            "provider 'raises' (acme-raises 1.0, module acme_raises) cannot be imported: "
            "RuntimeError: no licence for Acme. Reinstall it with its dependencies (pip install "
            "--upgrade acme-raises), or disable it with SANDBOX_CORE_DISABLED_PROVIDERS=raises."
        )
        assert expected == report.providers["raises"]

    def test_it_raises_without_a_message(self, report: RegistryReport) -> None:
        """The class is the cause."""
        expected = _load_error(
            "provider 'silent' (acme-silent 1.0, module acme_silent) cannot be imported: "
            "RuntimeError. Reinstall it with its dependencies (pip install --upgrade acme-silent), "
            "or disable it with SANDBOX_CORE_DISABLED_PROVIDERS=silent."
        )
        assert expected == report.providers["silent"]

    def test_a_dependency_is_missing(self, report: RegistryReport) -> None:
        """Its name is in the message."""
        expected = _load_error(
            "provider 'needs-more' (acme-needs-more 1.0, module acme_needs_more) cannot be "
            "imported: ModuleNotFoundError: No module named 'acme_vendor_sdk'. Reinstall it with "
            "its dependencies (pip install --upgrade acme-needs-more), or disable it with "
            "SANDBOX_CORE_DISABLED_PROVIDERS=needs-more."
        )
        assert expected == report.providers["needs-more"]

    def test_it_is_no_python(self, report: RegistryReport) -> None:
        """A syntax error is an error of the plugin like any other."""
        with pytest.raises(SyntaxError) as raised:
            compile(TYPO, "__init__.py", "exec")
        expected = _load_error(
            f"provider 'typo' (acme-typo 1.0, module acme_typo) cannot be imported: SyntaxError: "
            f"{raised.value}. Reinstall it with its dependencies (pip install --upgrade "
            f"acme-typo), or disable it with SANDBOX_CORE_DISABLED_PROVIDERS=typo."
        )
        assert expected == report.providers["typo"]

    def test_the_source_of_an_editable_install_is_gone(
        self, report: RegistryReport, stale_tree: Path
    ) -> None:
        """The advice is about the folder, not about dependencies."""
        expected = _load_error(
            f"provider 'stale' (acme-stale 1.0, module acme_stale) cannot be imported: "
            f"ModuleNotFoundError: No module named 'acme_stale'. It is an editable install of "
            f"{stale_tree}, which no longer exists: reinstall or uninstall acme-stale."
        )
        assert stale_tree == report.candidate("stale").editable_path
        assert expected == report.providers["stale"]


class TestHook:
    """A module whose hook is not what it should be."""

    def test_it_is_misspelt(self, report: RegistryReport) -> None:
        """Both spellings are named."""
        expected = _load_error(
            "provider 'misspelt' (acme-misspelt 1.0, module acme_misspelt) implements "
            "'sandbox_client_providr', which is not a hook of sandbox-core: the hook is called "
            "'sandbox_client_provider'."
        )
        assert expected == report.providers["misspelt"]

    @pytest.mark.parametrize("name", ["no-hook", "unmarked", "nothing"])
    def test_it_is_missing_or_not_marked_or_returns_nothing(
        self, report: RegistryReport, name: str
    ) -> None:
        """The message says what is needed."""
        expected = _load_error(
            f"provider '{name}' (acme-{name} 1.0, module acme_{name.replace('-', '_')}) provides "
            f"nothing: its module needs a function 'sandbox_client_provider' marked with "
            f"@sandbox_core.providers.hookimpl that returns the provider."
        )
        assert expected == report.providers[name]

    def test_it_takes_an_argument(self, report: RegistryReport) -> None:
        """There are none to give."""
        expected = _load_error(
            "provider 'argument' (acme-argument 1.0, module acme_argument) implements the hook "
            "'sandbox_client_provider' wrongly: it takes no arguments."
        )
        assert expected == report.providers["argument"]

    def test_it_raises(self, report: RegistryReport) -> None:
        """The cause is there."""
        expected = _load_error(
            "provider 'hook-raises' (acme-hook-raises 1.0, module acme_hook_raises) failed in its "
            "hook 'sandbox_client_provider': NameError: name 'Provider' is not defined."
        )
        assert expected == report.providers["hook-raises"]

    def test_its_provider_is_abstract(self, report: RegistryReport) -> None:
        """Python names the method that is missing."""
        abstract = type("Provider", (SandboxClientProvider,), {})
        with pytest.raises(TypeError) as raised:
            abstract()
        expected = _load_error(
            f"provider 'abstract' (acme-abstract 1.0, module acme_abstract) failed in its hook "
            f"'sandbox_client_provider': TypeError: {raised.value}."
        )
        assert expected == report.providers["abstract"]

    def test_it_returns_a_class(self, report: RegistryReport) -> None:
        """The class of a provider is not a provider."""
        expected = _load_error(
            "provider 'class' (acme-class 1.0, module acme_class) returned the class "
            f"acme_class.Provider itself {RETURNED}"
        )
        assert expected == report.providers["class"]

    def test_it_returns_something_else(self, report: RegistryReport) -> None:
        """What it returned is named."""
        expected = _load_error(
            "provider 'other' (acme-other 1.0, module acme_other) returned an object of class "
            f"acme_other.Provider {RETURNED}"
        )
        assert expected == report.providers["other"]

    def test_it_is_asynchronous(self, report: RegistryReport) -> None:
        """That is said, rather than the class of what it returned."""
        expected = _load_error(
            "provider 'later' (acme-later 1.0, module acme_later) returned a coroutine (it is "
            f"`async def`) {RETURNED}"
        )
        assert expected == report.providers["later"]


class TestProvider:
    """A provider that does not keep the contract."""

    def test_its_name_is_not_its_entry_points(self, report: RegistryReport) -> None:
        """Both names are there."""
        expected = _load_error(
            "provider 'renamed' (acme-renamed 1.0, module acme_renamed) calls itself 'named'. The "
            "entry point's and the provider's name must be equal: it is recorded in workflow "
            "histories."
        )
        assert expected == report.providers["renamed"]

    def test_its_name_breaks_the_rule(self, report: RegistryReport) -> None:
        """It is rejected, not made to fit."""
        expected = ProviderReport(
            error="InvalidProviderName",
            message=(
                "'Acme_Box' is not a provider name: use lower-case letters and digits in words "
                "joined by single hyphens, starting with a letter, for example 'daytona' or "
                "'unix-local'."
            ),
        )
        assert expected == report.providers["Acme_Box"]

    def test_an_attribute_is_missing(self, report: RegistryReport) -> None:
        """It is named, with the class that should have it."""
        expected = _load_error(
            "provider 'incomplete' (acme-incomplete 1.0, module acme_incomplete) does not set "
            "options_type on acme_incomplete.Provider; see "
            "sandbox_core.providers.SandboxClientProvider."
        )
        assert expected == report.providers["incomplete"]

    def test_all_attributes_are_missing(self, report: RegistryReport) -> None:
        """They are in one message."""
        expected = _load_error(
            "provider 'bare' (acme-bare 1.0, module acme_bare) does not set name, summary, "
            "api_version, options_type on acme_bare.Provider; see "
            "sandbox_core.providers.SandboxClientProvider."
        )
        assert expected == report.providers["bare"]

    def test_an_attribute_raises(self, report: RegistryReport) -> None:
        """Attributes may be properties."""
        expected = _load_error(
            "provider 'secretive' (acme-secretive 1.0, module acme_secretive) failed when asked "
            "for summary: ZeroDivisionError: division by zero."
        )
        assert expected == report.providers["secretive"]

    def test_its_contract_is_from_the_future(self, report: RegistryReport) -> None:
        """Both versions are there, and both ways out."""
        expected = ProviderReport(
            error="IncompatibleProvider",
            message=(
                "provider 'future' (acme-future 1.0, module acme_future) needs version 2 of the "
                "provider contract; this sandbox-core supports 1. Upgrade it (pip install "
                "--upgrade sandbox-core) or install an older acme-future."
            ),
        )
        assert expected == report.providers["future"]

    def test_a_future_contract_may_have_other_attributes(self, report: RegistryReport) -> None:
        """What this version misses is then not the provider's mistake."""
        expected = ProviderReport(
            error="IncompatibleProvider",
            message=(
                "provider 'far-future' (acme-far-future 1.0, module acme_far_future) needs "
                "version 3 of the provider contract; this sandbox-core supports 1. Upgrade it "
                "(pip install --upgrade sandbox-core) or install an older acme-far-future."
            ),
        )
        assert expected == report.providers["far-future"]


class TestTwoDistributionsWithOneName:
    """The name is recorded in histories, so neither gets it."""

    def test_both_are_named(self, report: RegistryReport) -> None:
        """With their versions, sorted."""
        expected = ProviderReport(
            error="DuplicateProvider",
            message=(
                "provider 'twin' is claimed by acme-twin 1.0 and by box-twin 0.2. The name is "
                "recorded in workflow histories, so the order of installation must not decide: "
                "uninstall all but one of them."
            ),
        )
        assert expected == report.providers["twin"]


@pytest.fixture(scope="module")
def odd(new_environment: Callable[[], Environment]) -> RegistryReport:
    environment = new_environment()
    environment.install(
        HEALTHY,
        plugin("exits", "raise SystemExit('Acme needs a licence')"),
        plugin("text", module(provider("text", api_version="'1'"), HOOK)),
        plugin("optional", module(provider("optional", options_type="'AcmeOptions'"), HOOK)),
    )
    return registry_report(environment)


class TestWhatIsNoException:
    """Mistakes that show only in how Python answers to them are the plugin's error as well."""

    def test_a_module_that_exits_does_not_end_the_worker(self, odd: RegistryReport) -> None:
        """`sys.exit` in a plugin is a failure to import it."""
        expected = _load_error(
            "provider 'exits' (acme-exits 1.0, module acme_exits) cannot be imported: SystemExit: "
            "Acme needs a licence. Reinstall it with its dependencies (pip install --upgrade "
            "acme-exits), or disable it with SANDBOX_CORE_DISABLED_PROVIDERS=exits."
        )
        assert expected == odd.providers["exits"]

    def test_a_contract_version_is_an_integer(self, odd: RegistryReport) -> None:
        """Nothing else can be compared."""
        expected = _load_error(
            "provider 'text' (acme-text 1.0, module acme_text) sets api_version to '1', which is "
            "not an integer."
        )
        assert expected == odd.providers["text"]

    def test_the_options_type_is_a_class(self, odd: RegistryReport) -> None:
        """Its module has to be known before any worker runs."""
        expected = _load_error(
            "provider 'optional' (acme-optional 1.0, module acme_optional) sets options_type to "
            "'AcmeOptions', not a subclass of BaseSandboxClientOptions."
        )
        assert expected == odd.providers["optional"]

    def test_the_others_load(self, odd: RegistryReport) -> None:
        """Here as everywhere."""
        assert odd.providers["healthy"].error is None


def test_an_entry_point_names_a_module_and_nothing_in_it() -> None:
    """Where the hook is says the module's name alone."""
    candidate = Candidate(
        name="inner", module="acme_inner:provider", distribution="acme-inner", version="1.0"
    )
    (failed,) = load([candidate])

    assert isinstance(failed, FailedProvider)
    assert (
        "provider 'inner' (acme-inner 1.0, module acme_inner:provider) has an entry point with a "
        "':'. It must name only the module that contains the hook 'sandbox_client_provider'."
    ) == failed.error.message
