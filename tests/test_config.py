"""The settings: where each comes from, and what is refused."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from sandbox_core.cli.commands.servers import worker
from sandbox_core.config import (
    OTHER_VARIABLES,
    SETTINGS,
    Configuration,
    Setting,
    Settings,
    WorkerSettings,
    load_configuration,
    read_configuration,
    write_value,
)
from sandbox_core.errors import ConfigError, UnknownProvider
from sandbox_core.testing.contract.fleet import connect
from sandbox_core.worker import SandboxPlugin


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A setting as a file has it, as a variable has it, and what each means."""

    toml: str
    of_file: object
    text: str
    of_variable: object


SAMPLES = {
    "storage": Sample(
        toml='"s3://file/p"',
        of_file="s3://file/p",
        text="s3://variable",
        of_variable="s3://variable",
    ),
    "storage_patience": Sample(
        toml='"10m"', of_file=timedelta(minutes=10), text="90s", of_variable=timedelta(seconds=90)
    ),
    "storage_threshold": Sample(toml="0", of_file=0, text="7", of_variable=7),
    "max_file_bytes": Sample(toml="5_000", of_file=5000, text="6000", of_variable=6000),
    "max_output_bytes": Sample(toml="5", of_file=5, text="6", of_variable=6),
    "local_sources": Sample(
        toml='["/a"]', of_file=("/a",), text="/b, /c", of_variable=("/b", "/c")
    ),
    "worker_env": Sample(toml='["A", "B"]', of_file=("A", "B"), text="C", of_variable=("C",)),
    "providers": Sample(toml='["a"]', of_file=("a",), text="b,c", of_variable=("b", "c")),
    "disabled_providers": Sample(toml='["a"]', of_file=("a",), text=" b ,", of_variable=("b",)),
    "max_sandboxes": Sample(
        toml="{ a = 1, b = 2 }",
        of_file={"a": 1, "b": 2},
        text="c=3, d=4",
        of_variable={"c": 3, "d": 4},
    ),
    "peer_clients": Sample(
        toml='{ a = "x" }', of_file={"a": "x"}, text="b=y", of_variable={"b": "y"}
    ),
    "register_activities": Sample(toml="false", of_file=False, text="on", of_variable=True),
    "helper": Sample(toml="false", of_file=False, text="TRUE", of_variable=True),
    "worker.targets": Sample(
        toml='["a:A"]', of_file=("a:A",), text="b:B,c:C", of_variable=("b:B", "c:C")
    ),
    "worker.task_queue": Sample(toml='"a"', of_file="a", text="b", of_variable="b"),
    "worker.openai": Sample(toml="true", of_file=True, text="off", of_variable=False),
    "worker.max_concurrent_activities": Sample(toml="5", of_file=5, text="6", of_variable=6),
    "worker.health_port": Sample(toml="8080", of_file=8080, text="8081", of_variable=8081),
    "worker.metrics_port": Sample(toml="9090", of_file=9090, text="9091", of_variable=9091),
    "worker.otlp": Sample(toml="true", of_file=True, text="off", of_variable=False),
    "worker.log_format": Sample(toml='"json"', of_file="json", text="text", of_variable="text"),
    "worker.grace_period": Sample(
        toml='"1m"', of_file=timedelta(minutes=1), text="2h", of_variable=timedelta(hours=2)
    ),
}

_EACH = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, without variables."""
    for name in os.environ:
        if name.startswith("SANDBOX_CORE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[[str], None]:
    """Writes the file."""

    def write(text: str) -> None:
        (folder / "sandbox.toml").write_text(text, encoding="utf-8")

    return write


def problems(configuration: Configuration) -> list[str]:
    return [str(problem) for problem in configuration.problems]


class TestPrecedence:
    """An argument over a variable over the file over the default."""

    def test_all_settings_have_a_sample(self) -> None:
        assert list(SAMPLES) == [setting.name for setting in SETTINGS]

    @_EACH
    def test_of_a_setting(self, setting: Setting, write: Callable[[str], None]) -> None:
        sample = SAMPLES[setting.name]
        default = read_configuration({})
        write(f"# The next line has it.\n{setting.name} = {sample.toml}\n")
        file = load_configuration({})
        variable = load_configuration({setting.variable: sample.text})
        table = WorkerSettings if setting.table is WorkerSettings else Settings

        assert setting.default == setting.of(default.settings)
        assert {} == default.origins
        assert sample.of_file == setting.of(file.settings)
        assert {setting.name: "sandbox.toml:2"} == file.origins
        assert sample.of_variable == setting.of(variable.settings)
        assert {setting.name: setting.variable} == variable.origins
        arguments = {setting.key: "of an argument"}
        assert arguments.items() <= dict(table().overridden(**arguments)).items()

    @_EACH
    def test_an_empty_variable_is_as_if_it_were_not_set(
        self, setting: Setting, write: Callable[[str], None]
    ) -> None:
        sample = SAMPLES[setting.name]
        write(f"{setting.name} = {sample.toml}")

        assert sample.of_file == setting.of(load_configuration({setting.variable: ""}).settings)

    @_EACH
    def test_what_is_shown_is_what_a_variable_would_say(
        self, setting: Setting, folder: Path
    ) -> None:
        value = SAMPLES[setting.name].of_variable

        written = load_configuration({setting.variable: write_value(value)})
        assert value == setting.of(written.settings)

    @pytest.mark.parametrize(
        "setting",
        [row for row in SETTINGS if "SandboxPlugin" in row.argument],
        ids=lambda s: s.name,
    )
    def test_of_an_argument_of_the_plugin(
        self, setting: Setting, write: Callable[[str], None]
    ) -> None:
        sample = SAMPLES[setting.name]

        def plugin(**arguments: Any) -> object:  # noqa: ANN401 - any of them
            return SandboxPlugin(**arguments)._settings

        default = plugin()
        as_file = plugin(**{setting.key: sample.of_file})
        as_argument = plugin(**{setting.key: sample.of_variable})
        write(f"{setting.name} = {sample.toml}")

        assert as_file == plugin() != default
        assert as_argument == plugin(**{setting.key: sample.of_variable}) != as_file

    def test_the_plugin_has_the_file_the_variables_and_its_arguments(
        self, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        monkeypatch.setenv("SANDBOX_CORE_MAX_SANDBOXES", "local=4")
        write(f'storage = "{folder}"\nworker_env = ["A"]\nmax_sandboxes.local = 3\nhelper = false')
        configured = SandboxPlugin()._offer
        passed = SandboxPlugin(worker_env=["B"], max_sandboxes={"local": 5})._offer

        assert (frozenset({"A"}), {"local": 4}) == (configured.worker_env, configured.max_sandboxes)
        assert (frozenset({"B"}), {"local": 5}) == (passed.worker_env, passed.max_sandboxes)
        assert "sandbox.toml:4: helper=off" == configured.helper_off
        assert configured.fleet

    def test_a_required_provider_that_is_missing_is_named_with_its_line(
        self, write: Callable[[str], None]
    ) -> None:
        write('\nproviders = ["moon"]')

        with pytest.raises(UnknownProvider, match=r"sandbox.toml:2: providers requires 'moon'"):
            SandboxPlugin()._offer.load()


class TestTheTable:
    """There is one."""

    def test_it_has_every_argument_of_the_plugin_that_can_be_text(self) -> None:
        parameters = inspect.signature(SandboxPlugin).parameters
        rows = [setting for setting in SETTINGS if setting.table is Settings]

        assert parameters.keys() - {"providers", "authorize"} == {
            row.key for row in rows if row.argument
        }
        assert all(parameters[row.key].default is None for row in rows if row.argument)

    def test_it_has_every_option_of_the_worker(self) -> None:
        parameters = inspect.signature(worker).parameters

        connection = {"address", "namespace", "profile"}
        assert parameters.keys() - connection == WorkerSettings.model_fields.keys()
        assert all(parameter.default is None for parameter in parameters.values())

    def test_its_defaults_of_the_worker_are_those_that_the_help_names(self) -> None:
        command = typer.main.get_command(_app())
        texts = {option.name: getattr(option, "help", "") for option in command.params}

        assert "by default sandbox" in texts["task_queue"]
        assert "by default 100" in texts["max_concurrent_activities"]
        assert "by default text" in texts["log_format"]
        assert "by default 25s" in texts["grace_period"]
        chosen = WorkerSettings()
        assert ("sandbox", 100, "text") == (
            chosen.task_queue,
            chosen.max_concurrent_activities,
            chosen.log_format,
        )
        assert timedelta(seconds=25) == chosen.grace_period


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(worker)
    return app


class TestTheFile:
    """Which one is read, and where it is wrong."""

    def test_a_variable_names_another(self, write: Callable[[str], None], folder: Path) -> None:
        write("max_file_bytes = 1")
        (folder / "other.toml").write_text("max_file_bytes = 2")
        read = load_configuration({"SANDBOX_CORE_CONFIG": "other.toml"})

        assert 2 == read.settings.max_file_bytes
        assert folder / "other.toml" == read.file
        assert {"max_file_bytes": "other.toml:1"} == read.origins
        assert Settings() == load_configuration({"SANDBOX_CORE_CONFIG": os.devnull}).settings

    def test_one_that_is_named_has_to_exist(self, folder: Path) -> None:
        with pytest.raises(ConfigError) as failed:
            load_configuration({"SANDBOX_CORE_CONFIG": "moon.toml"})

        assert "moon.toml: No such file or directory; correct or unset SANDBOX_CORE_CONFIG" == str(
            failed.value
        )

    def test_a_working_directory_that_may_not_be_read(self, folder: Path) -> None:
        """As that of a container, mounted from another user's."""
        folder.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # Root may read everything.
        try:
            (problem,) = read_configuration().problems
        finally:
            os.seteuid(user)
            folder.chmod(0o700)

        assert (
            "sandbox.toml: Permission denied; start in a directory that may be read, or set "
            "SANDBOX_CORE_CONFIG=/dev/null"
        ) == str(problem)

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("unmounted", "No such file or directory"),
            ("sandbox.toml", "Too many levels of symbolic links"),
        ],
    )
    def test_a_link_that_leads_nowhere(self, target: str, said: str, folder: Path) -> None:
        (folder / "sandbox.toml").symlink_to(target)

        with pytest.raises(ConfigError) as failed:
            load_configuration({})

        assert f"sandbox.toml: {said}" == str(failed.value)

    def test_a_directory_of_its_name_is_another_matter(self, folder: Path) -> None:
        (folder / "sandbox.toml").mkdir()

        assert load_configuration({}).file is None

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a = 1\nstorage = = 2", "sandbox.toml:2:11: not TOML: Invalid value"),
            ("helper = true\nhelper = false", "sandbox.toml:2:15: not TOML: Cannot overwrite"),
            ("worker_env = [\n'A',\n", "sandbox.toml:3:1: not TOML: "),
            ("max_file_bytes = ", "sandbox.toml:1:18: not TOML: Invalid value"),
        ],
    )
    def test_that_is_no_toml(self, text: str, said: str, write: Callable[[str], None]) -> None:
        write(text)
        (problem,) = problems(read_configuration({}))

        assert problem.startswith(said)
        assert "\n" not in problem

    def test_that_is_no_text(self, folder: Path) -> None:
        (folder / "sandbox.toml").write_bytes(b"\n# \xff")

        assert ["sandbox.toml:2: not UTF-8"] == problems(read_configuration({}))

    def test_that_never_ends(self, folder: Path) -> None:
        read = read_configuration({"SANDBOX_CORE_CONFIG": "/dev/zero"})

        assert ["/dev/zero: larger than 1,048,576 bytes"] == problems(read)

    def test_lines_are_those_of_the_keys(self, write: Callable[[str], None]) -> None:
        """Whatever is between them."""
        write(
            '# "x\nstorage_patience = "1m"  # storage = 1\n'
            'worker_env = [\n  "A", # ]\n\n  "B",\n]\n'
            'peer_clients.a = "x"\npeer_clients.b = "y"\n'
            'storage = """\\\n  s3://b/\\\n  p"""\n\n'
            '[max_sandboxes]\r\n# none\n"local" = 1\n[ worker ]\nopenai = true\n'
        )
        read = load_configuration({})

        assert {
            "storage_patience": "sandbox.toml:2",
            "worker_env": "sandbox.toml:3",
            "peer_clients": "sandbox.toml:8",
            "storage": "sandbox.toml:10",
            "max_sandboxes": "sandbox.toml:14",
            "worker.openai": "sandbox.toml:18",
        } == read.origins
        assert "s3://b/p" == read.settings.storage


async def test_the_provider_kit_reads_no_file(
    write: Callable[[str], None], temporal_address: str
) -> None:
    """A provider is checked in the same way in every directory."""
    write("storge = 1")

    client = await connect(temporal_address)

    assert ["sandbox-core"] == [plugin.name() for plugin in client.config()["plugins"]]


class TestUnknown:
    """A setting that nothing reads is a mistake."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("\nstorge = 1", 'sandbox.toml:2: unknown key "storge"; rename it to "storage"'),
            ("max-file-bytes = 1", 'unknown key "max-file-bytes"; rename it to "max_file_bytes"'),
            ("task_queue = 'a'", 'unknown key "task_queue"; rename it to "worker.task_queue"'),
            (
                "[worker]\n\nhelth_port = 1",
                'sandbox.toml:3: unknown key "worker.helth_port"; rename',
            ),
            ("[worker]\nstorage = ''", 'unknown key "worker.storage"; rename it to "storage"'),
            (
                "[wroker]\nopenai = true",
                'sandbox.toml:1: unknown key "wroker"; rename it to "worker"',
            ),
            ("[[quux]]\na = 1", 'sandbox.toml:1: unknown key "quux"; remove it'),
            ("worker.a.b = 1", 'sandbox.toml:1: unknown key "worker.a"; '),
            ("worker = 1", 'sandbox.toml:1: "worker" must be a table; write [worker]'),
        ],
    )
    def test_key(self, text: str, said: str, write: Callable[[str], None]) -> None:
        write(text)
        (problem,) = problems(read_configuration({}))

        assert said in problem

    def test_variable(self, folder: Path) -> None:
        environ = {
            "SANDBOX_CORE_STORGE": "x",
            "SANDBOX_CORE_XYZZY": "",
            **dict.fromkeys(OTHER_VARIABLES, ""),
            "SANDBOX_CORE_TEST_PYTHONS": "3.10",
        }

        assert [
            "SANDBOX_CORE_STORGE: unknown variable; rename it to SANDBOX_CORE_STORAGE, or unset it",
            "SANDBOX_CORE_XYZZY: unknown variable; unset it",
        ] == problems(read_configuration(environ))

    def test_not_what_kubernetes_sets_for_services(self, folder: Path) -> None:
        """Named `sandbox-core`, `sandbox-core-worker` and `sandbox-core-worker-metrics`."""
        names = ["SANDBOX_CORE", "SANDBOX_CORE_WORKER", "SANDBOX_CORE_WORKER_METRICS"]
        environ = {
            f"{name}{end}": value
            for name in names
            for end, value in {
                "_SERVICE_HOST": "10.0.0.1",
                "_SERVICE_PORT": "80",
                "_SERVICE_PORT_HTTP": "80",
                "_PORT": "tcp://10.0.0.1:80",
                "_PORT_80_TCP": "tcp://10.0.0.1:80",
                "_PORT_80_TCP_PROTO": "tcp",
                "_PORT_80_TCP_PORT": "80",
                "_PORT_80_TCP_ADDR": "10.0.0.1",
            }.items()
        }

        assert Settings() == load_configuration(environ).settings


class TestWrong:
    """A value of another kind; it is never shown, since it may be a secret."""

    @_EACH
    def test_in_the_file(self, setting: Setting, write: Callable[[str], None]) -> None:
        write(f"{setting.name} = 1979-05-27T07:32:00Z")
        read = read_configuration({})

        assert [f'sandbox.toml:1: "{setting.name}" must be {setting.kind}'] == problems(read)
        assert setting.default == setting.of(read.settings)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("max_file_bytes = 0", 1),
            ("max_file_bytes = '5'", 1),
            ("storage_threshold = 10_000_000", 1),
            ("helper = 'off'", 1),
            ("storage_patience = 300", 1),
            ("storage = ''", 1),
            ("worker_env = 'A'", 1),
            ("worker_env = [\n'A',\n1]", 1),
            ("local_sources = ['relative']", 1),
            ("providers = []", 1),
            ("[max_sandboxes]\nlocal = 1\ndocker = 0", 3),
            ("[worker]\nlog_format = 'xml'", 2),
            ("[worker]\nhealth_port = 70000", 2),
        ],
    )
    def test_value_of_a_key(self, text: str, line: int, write: Callable[[str], None]) -> None:
        write(text)
        (problem,) = problems(read_configuration({}))

        assert problem.startswith(f"sandbox.toml:{line}: ")
        assert " must be " in problem

    @pytest.mark.parametrize(
        ("variable", "text"),
        [
            ("MAX_FILE_BYTES", "s3cr3t"),
            ("STORAGE_PATIENCE", "s3cr3t"),
            ("HELPER", "s3cr3t"),
            ("MAX_SANDBOXES", "s3cr3t"),
            ("MAX_SANDBOXES", "local=s3cr3t"),
            ("LOCAL_SOURCES", "s3cr3t"),
            ("PROVIDERS", ","),
            ("WORKER_LOG_FORMAT", "s3cr3t"),
        ],
    )
    def test_value_of_a_variable(self, variable: str, text: str, folder: Path) -> None:
        (problem,) = problems(read_configuration({f"SANDBOX_CORE_{variable}": text}))

        assert problem.startswith(f"SANDBOX_CORE_{variable}: must be ")
        assert "s3cr3t" not in problem

    def test_all_are_in_one_error(
        self, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody has to find them one after the other."""
        monkeypatch.setenv("SANDBOX_CORE_HELPER", "perhaps")
        write("storge = 1\nmax_file_bytes = 0\n")
        with pytest.raises(ConfigError) as failed:
            SandboxPlugin()

        places = [line.partition(": ")[0] for line in str(failed.value).splitlines()]
        assert ["sandbox.toml:1", "sandbox.toml:2", "SANDBOX_CORE_HELPER"] == places
