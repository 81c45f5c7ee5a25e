"""Requests and responses as plain JSON, and their summaries in the Temporal UI."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_core.wire import messages as m
from sandbox_core.wire.messages import Message
from sandbox_core.wire.operations import operations
from sandbox_core.wire.summaries import summarize

SESSION = m.SessionRef(session_id="s", epoch=1)
SECRET = "hunter2"

some = settings(max_examples=15, deadline=None)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
JSON_OBJECTS = st.dictionaries(st.text(), JSON_VALUES, max_size=3)
SCALARS: dict[object, st.SearchStrategy[object]] = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary() | st.text().map(str.encode),
    NoneType: st.none(),
}


def values(annotation: object) -> st.SearchStrategy[object]:
    """Return a strategy for what a field of a message holds."""
    if annotation in SCALARS:
        return SCALARS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return messages(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(arguments[0])
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    assert origin is dict, f"no strategy for {annotation}"
    if arguments[1] in SCALARS:
        return st.dictionaries(st.text(), SCALARS[arguments[1]], max_size=3)
    return JSON_OBJECTS


def messages(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Return a strategy for messages of a class, whose optional fields may be left out."""
    fields = cls.model_fields.items()
    return st.fixed_dictionaries(
        {name: values(f.annotation) for name, f in fields if f.is_required()},
        optional={name: values(f.annotation) for name, f in fields if not f.is_required()},
    ).map(lambda given_fields: cls(**given_fields))


def message_classes() -> Iterator[type[Message]]:
    for row in operations():
        yield row.request
        if issubclass(row.response, Message):
            yield row.response


CLASSES = sorted(set(message_classes()), key=lambda cls: cls.__name__)
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


class TestMessage:
    @each_class
    @some
    @given(data=st.data())
    def test_it_is_the_same_after_real_json(self, cls: type[Message], data: st.DataObject) -> None:
        """Also with a field of a newer version, which is ignored."""
        message = data.draw(messages(cls))
        sent = json.loads(json.dumps(message.dump()))

        assert message == cls.model_validate(sent)
        assert message == cls.model_validate({**sent, "from_a_newer_version": {"a": 1}})

    @each_class
    @some
    @given(data=st.data())
    def test_what_has_its_default_is_left_out(
        self, cls: type[Message], data: st.DataObject
    ) -> None:
        required = {name: f for name, f in cls.model_fields.items() if f.is_required()}
        message = cls(**{name: data.draw(values(f.annotation)) for name, f in required.items()})

        assert set(required) == set(message.dump())

    @each_class
    def test_it_cannot_be_changed(self, cls: type[Message]) -> None:
        assert cls.model_config.get("frozen")

    def test_an_operation_on_an_open_session_costs_little_more_than_what_it_says(self) -> None:
        request = m.ExecRequest(session=SESSION, operation_id="o", command=("ls",))

        assert {
            "session": {"session_id": "s", "epoch": 1},
            "operation_id": "o",
            "command": ["ls"],
        } == request.dump()

    def test_none_differs_from_a_default_that_is_not_none(self) -> None:
        settings = m.SessionSettings(manifest_entries=None)

        assert {"manifest_entries": None} == settings.dump()
        assert settings == m.SessionSettings.model_validate(settings.dump())

    def test_the_words_of_a_shell_stay_apart_from_a_flag(self) -> None:
        for shell in (True, False, ("bash", "-lc"), ()):
            request = m.ExecRequest(session=SESSION, operation_id="o", command=("ls",), shell=shell)

            assert shell == m.ExecRequest.model_validate(request.dump()).shell


class TestOutput:
    def test_text_is_text_so_that_the_ui_can_show_it(self) -> None:
        result = m.ExecResponse(stdout="gr\u00fc\u00dfe\n".encode(), exit_code=3)

        assert {"stdout": "gr\u00fc\u00dfe\n", "exit_code": 3} == result.dump()

    def test_what_is_not_utf_8_is_base64(self) -> None:
        assert {"stdout": {"base64": "//4="}} == m.ExecResponse(stdout=b"\xff\xfe").dump()

    @pytest.mark.parametrize(
        "output",
        [
            b"",
            b"\x00",
            b"\r\n",
            b'{"base64": "//4="}',
            b"\xef\xbb\xbfbom",
            b"cut \xe2\x82",
            b"\xff",
        ],
    )
    def test_it_arrives_byte_for_byte(self, output: bytes) -> None:
        dumped = json.loads(json.dumps(m.ExecResponse(stdout=output, stderr=output).dump()))

        result = m.ExecResponse.model_validate(dumped)

        assert (output, output) == (result.stdout, result.stderr)


class TestSummarize:
    @pytest.mark.parametrize(
        "command",
        [
            "curl -H 'Authorization: Bearer hunter2' https://example.com",
            "curl -H 'Authorization: Basic hunter2==' https://example.com",
            "requests.get(u, headers={'Authorization': 'Bearer hunter2'})",
            "curl -H 'X-Api-Key: hunter2' https://example.com",
            "curl 'https://example.com/?access_token=hunter2&page=2'",
            "git clone https://x-access-token:hunter2@github.com/a/b",
            "TOKEN=hunter2 ./deploy.sh",
            "export GITHUB_TOKEN=hunter2",
            "GITHUB_TOKEN='a hunter2' gh pr list",
            'API_KEY="hunter2" python main.py',
            "CLIENT_SECRET=hunter2\nmake",
            "AWS_SECRET_ACCESS_KEY=hunter2 aws s3 ls",
            "PGPASSWORD=hunter2 psql",
            "docker run -e SECRET_KEY=hunter2 app",
            "mysql --password hunter2 -e 'select 1'",
            "mysql --password=hunter2",
            "deploy --api-key hunter2",
            "deploy --token 'a hunter2'",
            "aws configure set aws_secret_access_key hunter2",
            "kubectl create secret generic x --from-literal=password=hunter2",
            "python -c \"Client(api_key='hunter2')\"",
            "echo 'api_key: hunter2' >> config.yml",
            "curl -H 'Authorization: token hunter2' https://x",
            "curl -H 'authorization:hunter2' https://x",
            "curl -H 'Cookie: session=hunter2' https://x",
            "curl -u admin:hunter2 https://x",
            "curl --user 'admin:hunter2' https://x",
            "git clone https://me:hunter2@example.com/r.git",
            "DB_PASS=hunter2 ./run",
            "MYSQL_PWD=hunter2 mysql",
            "PRIVATE_KEY=hunter2 ./sign",
            "SSH_PASSPHRASE=hunter2 ./sign",
            """echo '{"password": "hunter2"}' > c.json""",
            'curl -d "{\\"password\\": \\"hunter2\\"}" https://x',
            'bash -c "PASSWORD=\\"hunter2\\" ./run"',
            """sh -c 'PASSWORD='"'"'hunter2'"'"' ./run'""",
            'password = "hunter2',
        ],
    )
    def test_a_secret_is_removed(self, command: str) -> None:
        summary = summarize(command)

        assert SECRET not in summary
        assert "***" in summary

    @pytest.mark.parametrize(
        "secret",
        [
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "sk-proj-abcdefghijklmnop1234",
            "xoxb-1234567890-abcdef",
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        ],
    )
    def test_what_has_the_form_of_a_secret_is_removed_anywhere(self, secret: str) -> None:
        assert "echo *** | login" == summarize(f"echo {secret} | login")

    @pytest.mark.parametrize(
        "command",
        [
            "pytest -q tests/test_tokenizer.py",
            "pytest -q",
            "ls passwords/",
            "cat token.txt",
            "cat secrets/README",
            "python tokenize.py data.txt",
            "sed -n 1,40p src/credentials.py",
            "vault read secret/data/app",
            "rm -rf token-cache",
            "npm run build:token",
            "git clone https://github.com/a/token-b.git",
            "curl http://localhost:8080/health",
            "docker run -u 1000:1000 app",
            "cd /w && PWD=/x make",
            "grep -rn secret_santa .",
            'echo "basic usage"',
            "grep -n password src/login.py",
            "pytest -k token tests/",
            "pytest test_auth.py::TestToken::test_expired",
            "train.py --max-tokens 512 --tokenizer bert",
            'git commit -m "Refresh the token in time"',
            "docker login --password-stdin < key.txt",
            "docker run -v secrets:/run/secrets app",
            "deploy --token-file /run/token",
            "kubectl get secrets -n prod",
        ],
    )
    def test_a_harmless_command_is_left_as_it_is(self, command: str) -> None:
        assert command == summarize(command)

    @some
    @given(text=st.text())
    def test_it_is_one_line_of_at_most_100_characters(self, text: str) -> None:
        summary = summarize(text)

        assert len(summary) <= 100
        assert len(summary.splitlines()) <= 1

    def test_a_long_text_is_cut_and_says_so(self) -> None:
        assert "x" * 99 + "\N{HORIZONTAL ELLIPSIS}" == summarize("x" * 101)
        assert "x" * 100 == summarize("x" * 100)

    def test_a_secret_at_the_cut_is_removed_before_it(self) -> None:
        assert SECRET[:3] not in summarize("x" * 80 + " PASSWORD=" + SECRET * 5)

    def test_a_file_on_the_command_line_does_not_hold_up_the_workflow(self) -> None:
        """Temporal takes a workflow that computes for two seconds to be deadlocked."""
        started = time.thread_time()

        summarize("curl " * 20_000)

        assert time.thread_time() - started < 0.5


class TestSummary:
    @each_class
    @some
    @given(data=st.data())
    def test_every_message_has_one(self, cls: type[Message], data: st.DataObject) -> None:
        assert len(summarize(data.draw(messages(cls)).summary())) <= 100

    @pytest.mark.parametrize(
        ("message", "summary"),
        [
            (m.CreateSessionRequest(create_key="k", epoch=1), ""),
            (
                m.CreateSessionRequest(
                    create_key="k", epoch=1, manifest={"entries": {"a": {}, "b": {}, "c": {}}}
                ),
                "3 manifest entries",
            ),
            (m.ReadRequest(session=SESSION, path="/workspace/a b"), "/workspace/a b"),
            (m.ExecRequest(session=SESSION, operation_id="o", command=("ls | wc",)), "ls | wc"),
            (m.ExecRequest(session=SESSION, operation_id="o", command=("cat", "a b")), "cat 'a b'"),
            (m.PtyWriteStdinRequest(session=SESSION, operation_id="o", process_id=7), "7"),
            (
                m.PtyWriteStdinRequest(
                    session=SESSION, operation_id="o", process_id=7, chars="y\n"
                ),
                "7 'y\\n'",
            ),
            (
                m.ApplyPatchRequest(
                    session=SESSION,
                    operations=(
                        m.PatchOperation(type="update_file", path="a.py"),
                        m.PatchOperation(type="delete_file", path="b.py"),
                    ),
                ),
                "a.py b.py",
            ),
            (
                m.ApplyEntriesRequest(
                    session=SESSION,
                    entries=(m.PlacedEntry(path="/w/a", entry={}),) * 2,
                ),
                "2 entries",
            ),
            (
                m.ListSkillsRequest(
                    session=SESSION, source={"src": "/srv/skills"}, skills_path="s"
                ),
                "/srv/skills",
            ),
            (
                m.LoadSkillRequest(
                    session=SESSION, source={"src": "/srv"}, skills_path="s", skill_name="greeting"
                ),
                "greeting",
            ),
            (m.ResolveExposedPortRequest(session=SESSION, port=8080), "8080"),
            (m.RunningRequest(session=SESSION), ""),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Message) else None,
    )
    def test_it_says_what_the_operation_is_about(self, message: Message, summary: str) -> None:
        assert summary == message.summary()
