"""Sends requests to the helper by socket and by exec, as specified in PROTOCOL.md."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

Fields = dict[str, bytes | str | int | list[str] | list[bytes]]


def message(fields: Fields) -> bytes:
    """Encode fields as netstrings; a list is a repeated field."""
    body = b""
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            data = one if isinstance(one, bytes) else str(one).encode()
            body += b"%d:%s,%d:%s," % (len(name), name.encode(), len(data), data)
    return body


def parse(body: bytes) -> dict[str, bytes]:
    """Decode an answer; of a repeated name all values, each with a newline after it."""
    strings = []
    while body:
        size, _, rest = body.partition(b":")
        strings.append(rest[: int(size)])
        assert rest[int(size) : int(size) + 1] == b",", body
        body = rest[int(size) + 1 :]
    answer: dict[str, bytes] = {}
    for name, value in zip(strings[::2], strings[1::2], strict=True):
        key = name.decode()
        answer[key] = answer.get(key, b"") + value + b"\n" if key == "entry" else value
    return answer


def parse_text(text: bytes, mark: str) -> dict[str, bytes]:
    """Decode a text answer."""
    _, found, rest = text.partition(mark.encode() + b" ")
    assert found, text
    head, _, rest = rest.partition(b"\n")
    word, *pairs = head.split(b" ")
    answer = {"word": word}
    for pair in pairs:
        key, _, value = pair.partition(b"=")
        name = key.decode()
        if name in ("out", "err", "data"):
            how, _, size = value.partition(b":")
            section, rest = rest[: int(size)], rest[int(size) :]
            ending = b"\n" + mark.encode() + b"\n"
            assert rest.startswith(ending)
            rest = rest[len(ending) :]
            answer[name] = base64.b64decode(section) if how == b"b64" else section
        elif name == "entry":
            answer[name] = answer.get(name, b"") + unquote_to_bytes(value) + b"\n"
        else:
            answer[name] = unquote_to_bytes(value)
    assert rest.startswith(mark.encode() + b" end\n"), rest
    return answer


NO_ANSWER = 69
"""How a client exits that was not answered, without output."""


class NoAnswer(Exception):
    """The connection was closed, or the client killed, before there was an answer."""


@dataclass
class Helper:
    """A state folder, and the binary that makes and asks its resident."""

    binary: Path
    folder: Path
    prefix: list[str] = field(default_factory=list)

    def exec(
        self,
        verb: str,
        fields: Fields | None = None,
        *,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> dict[str, bytes]:
        done, mark = self.exec_raw(verb, fields or {}, env=env, cwd=cwd)
        if not done.stdout and (done.returncode < 0 or done.returncode == NO_ANSWER):
            raise NoAnswer
        assert done.stderr == b"", done.stderr
        return parse_text(done.stdout, mark)

    def exec_raw(
        self,
        verb: str,
        fields: Fields,
        *,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> tuple[subprocess.CompletedProcess[bytes], str]:
        mark = uuid.uuid4().hex
        encoded = base64.urlsafe_b64encode(
            message({"dir": str(self.folder), "mark": mark, **fields})
        )
        pieces = [encoded[i : i + 100_000] for i in range(0, len(encoded), 100_000)]
        done = subprocess.run(
            [*self.prefix, str(self.binary), verb, *(piece.decode() for piece in pieces)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=env,
            cwd=cwd,
            check=False,
            start_new_session=True,
        )
        return done, mark

    def connect(self) -> socket.socket:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(f"/proc/self/fd/{folder}/sock")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(folder)
        return connection

    def send(self, verb: str, fields: Fields | None = None) -> socket.socket:
        connection = self.connect()
        body = message({"verb": verb, **(fields or {})})
        connection.sendall(len(body).to_bytes(4, "big") + body)
        return connection

    def receive(self, connection: socket.socket) -> dict[str, bytes]:
        with connection:
            data = b""
            while chunk := connection.recv(1 << 20):
                data += chunk
        if not data:
            raise NoAnswer
        assert len(data) == 4 + int.from_bytes(data[:4], "big")
        return parse(data[4:])

    def ask(self, verb: str, fields: Fields | None = None) -> dict[str, bytes]:
        return self.receive(self.send(verb, fields))
