"""Tasks for agents, in a workflow and without Temporal: one case per behaviour."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents import RunContextWrapper, Tool, function_tool
from agents.sandbox import Manifest
from agents.sandbox.capabilities import (
    Capability,
    Compaction,
    Filesystem,
    LocalDirLazySkillSource,
    Memory,
    Shell,
    Skill,
    Skills,
    StaticCompactionPolicy,
)
from agents.sandbox.capabilities.shell import ShellToolSet
from agents.sandbox.config import MemoryGenerateConfig, MemoryReadConfig
from agents.sandbox.entries import BaseEntry, Dir, File, LocalDir
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from agents.sandbox.workspace_paths import SandboxPathGrant
from agents.testing import assistant_message, function_call
from openai.types.responses import (
    ResponseCompactionItem,
    ResponseCustomToolCall,
    ResponseOutputItem,
)
from temporalio import workflow

PROCESS = "$PROCESS"
"""In the arguments of a call: the id of the process that the conversation named last."""

REPORT = "$REPORT"
"""As the text of a message: what the model was told, as JSON."""

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
_SVG = File(content=b'<svg xmlns="http://www.w3.org/2000/svg"/>')
PROJECT: dict[str | Path, BaseEntry] = {
    "notes.txt": File(content=b"one\ntwo\nthree\n"),
    "dot.svg": _SVG,
    "sub": Dir(children={"inner.txt": File(content=b"inner\n"), "dot.svg": _SVG}),
}
_SKILL = b"---\nname: greeting\ndescription: How to greet\n---\nSay hello.\n"

Step = tuple[ResponseOutputItem, ...]
_numbers = iter(range(10**6))


def shell(command: str, **arguments: object) -> ResponseOutputItem:
    """Return a call of the shell tool."""
    return call("exec_command", cmd=command, **arguments)


def call(tool: str, **arguments: object) -> ResponseOutputItem:
    """Return a call of a tool."""
    return function_call(tool, arguments, call_id=f"call-{next(_numbers)}")


def stdin(chars: str, process: object = PROCESS, **arguments: object) -> ResponseOutputItem:
    """Return a call that writes to a process."""
    return call("write_stdin", session_id=process, chars=chars, **arguments)


def patch(*sections: str) -> ResponseOutputItem:
    """Return a call of the patch tool."""
    text = "\n".join(["*** Begin Patch", *sections, "*** End Patch"])
    return ResponseCustomToolCall(
        type="custom_tool_call", call_id=f"call-{next(_numbers)}", name="apply_patch", input=text
    )


def image(path: str) -> ResponseOutputItem:
    """Return a call of the image tool."""
    return call("view_image", path=path)


def say(text: str) -> ResponseOutputItem:
    """Return a message of the model."""
    return assistant_message(text)


def compacted(answers: int) -> ResponseOutputItem:
    """Return the item by which a model replaces so many answers of the conversation."""
    return ResponseCompactionItem(
        id="compaction-1", type="compaction", encrypted_content=str(answers)
    )


def _shell_and_files(directory: Path) -> list[Capability]:
    return [Shell(), Filesystem()]


def _project(directory: Path) -> Manifest:
    return Manifest(entries=dict(PROJECT))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One agent: what its model answers, and how it is set up and run.

    A step is what the model answers in one call; the last step of each turn is a message. The
    directory that the callables take is one of the host, for what is read from or written to it.
    """

    steps: Sequence[Step]
    turns: int = 1
    capabilities: Callable[[Path], list[Capability]] = _shell_and_files
    manifest: Callable[[Path], Manifest] = _project
    manifest_of_the_run: bool = False
    options: UnixLocalSandboxClientOptions | None = field(
        default_factory=UnixLocalSandboxClientOptions
    )
    snapshot: bool = False
    cwd: str | None = None
    run_as: str | None = None
    streamed: bool = False
    group: str | None = "parity"


def write_skills(directory: Path) -> Path:
    """Write a folder with one skill and return it."""
    skill = directory / "skills" / "greeting"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_bytes(_SKILL)
    (skill / "words.txt").write_text("hello\n", encoding="utf-8")
    return directory / "skills"


def _granted(directory: Path) -> Manifest:
    grant = SandboxPathGrant(path=str(directory / "skills"), read_only=True)
    return Manifest(entries=dict(PROJECT), extra_path_grants=(grant,))


def _inline_skills(directory: Path) -> list[Capability]:
    skill = Skill(
        name="greeting",
        description="How to greet",
        content=_SKILL,
        references={"words.txt": File(content=b"hello\n")},
    )
    return [Shell(), Skills(skills=[skill])]


def _skills_from_manifest(directory: Path) -> list[Capability]:
    greeting = Dir(children={"SKILL.md": File(content=_SKILL)})
    return [Shell(), Skills(from_=Dir(children={"greeting": greeting}))]


def _skills_from_disk(directory: Path) -> list[Capability]:
    return [Shell(), Skills(from_=LocalDir(src=directory / "skills"))]


def _lazy_skills(directory: Path) -> list[Capability]:
    source = LocalDirLazySkillSource(source=LocalDir(src=directory / "skills"))
    return [Shell(), Skills(lazy_from=source)]


def _no_lazy_skills(directory: Path) -> list[Capability]:
    source = LocalDirLazySkillSource(source=LocalDir(src=directory / "skills" / "missing"))
    return [Shell(), Skills(lazy_from=source)]


def _pixel(directory: Path) -> Manifest:
    return Manifest(entries={"pixel.png": File(content=base64.b64decode(PNG))})


def _remembering(directory: Path) -> Manifest:
    summary = File(content=b"The user likes short answers.\n")
    return Manifest(entries={"memories": Dir(children={"memory_summary.md": summary})})


def _memory_reader(directory: Path) -> list[Capability]:
    return [Shell(), Filesystem(), Memory(generate=None)]


def _memory(directory: Path) -> list[Capability]:
    # The runs in which the SDK makes memories have no model provider of their own. In a workflow
    # the plugin looks models up by name; without one the SDK has to be given the model itself.
    from workflows.parity import ScriptedModels

    def model(name: str) -> Any:  # noqa: ANN401 - the SDK takes a name or a model
        return name if workflow.in_workflow() else ScriptedModels().get_model(name)

    generate = MemoryGenerateConfig(
        phase_one_model=model("memory, phase one"), phase_two_model=model("memory, phase two")
    )
    return [Shell(), Memory(read=MemoryReadConfig(live_update=False), generate=generate)]


def _compacting(directory: Path) -> list[Capability]:
    return [Shell(), Compaction(policy=StaticCompactionPolicy(threshold=1000))]


def _asking_for_cat(directory: Path) -> list[Capability]:
    async def is_cat(
        context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str
    ) -> bool:
        return "cat" in str(arguments["cmd"])

    def configure(tools: ShellToolSet) -> None:
        tools.exec_command.needs_approval = is_cat

    return [Shell(configure_tools=configure)]


class SessionProbe(Capability):
    """What an application's own capability does with the session."""

    def tools(self) -> list[Tool]:
        """Return the tools."""
        session = self.session
        assert session is not None

        @function_tool
        async def resolve_port(port: int) -> str:
            """Return the URL of a port."""
            return (await session.resolve_exposed_port(port)).url_for("http")

        @function_tool
        async def list_directory(path: str) -> str:
            """Return the names and kinds in a directory."""
            return json.dumps(
                sorted((Path(e.path).name, e.kind.value, e.size) for e in await session.ls(path))
            )

        @function_tool
        async def describe() -> str:
            """Return what the session says of its workspace."""
            return session.describe()

        return [resolve_port, list_directory, describe]


def _probing(directory: Path) -> list[Capability]:
    return [Shell(), SessionProbe(type="session-probe")]


_LISTING = (shell("find . -type f | sort; cat notes.txt"),)
_DONE: Step = (say(REPORT),)
_READ_LINE = "read line; echo got $line; exit 4"
_ASKING = [
    (shell("echo made > made.txt; echo edited > notes.txt"),),
    (shell("cat made.txt notes.txt 2>&1"),),
    _DONE,
]
_REMEMBERED = {
    "rollout_slug": "short-answers",
    "rollout_summary": "The user asked for a file.",
    "raw_memory": "The user likes files.",
}

CASES: dict[str, Case] = {
    "commands": Case(
        steps=[
            (shell("echo out; sleep 0.3; echo err >&2; exit 3"),),
            (shell("cat notes.txt"), shell("printf 'caf\\351'")),
            (shell("echo $0", shell="bash", login=False),),
            (shell("pwd; echo $HOME; id -un"),),
            _DONE,
        ]
    ),
    "long output": Case(
        steps=[(shell("seq 1 5000", max_output_tokens=40),), (shell("seq 1 20000"),), _DONE]
    ),
    "longer than it is waited for": Case(
        steps=[
            (shell("echo begun; sleep 2; echo done", yield_time_ms=500),),
            (stdin(""),),
            _DONE,
        ]
    ),
    "working directories": Case(
        steps=[
            (shell("pwd; ls", workdir="sub"),),
            (shell("pwd", workdir="missing"),),
            (shell("pwd", workdir="."),),
            _DONE,
        ]
    ),
    "working directory outside": Case(steps=[(shell("pwd", workdir="../.."),), _DONE]),
    "terminal": Case(
        steps=[
            (shell(_READ_LINE, tty=True, yield_time_ms=500),),
            (stdin("it\n", yield_time_ms=3000),),
            (shell("cat", tty=True, yield_time_ms=500),),
            (stdin("\x04", yield_time_ms=3000),),
            (shell("sleep 60", tty=True, yield_time_ms=500),),
            (stdin("\x03", yield_time_ms=3000),),
            _DONE,
        ]
    ),
    "process without stdin": Case(
        steps=[(shell("sleep 60", yield_time_ms=300),), (stdin("x"),), _DONE]
    ),
    "process that ended": Case(
        steps=[
            (shell(_READ_LINE, tty=True, yield_time_ms=500),),
            (stdin("it\n", yield_time_ms=3000),),
            (stdin("more\n"),),
            _DONE,
        ]
    ),
    "process that never was": Case(steps=[(stdin("x", process=424242),), _DONE]),
    "patch": Case(
        steps=[
            (patch("*** Add File: made/new.txt", "+new"),),
            (patch("*** Update File: notes.txt", "@@", " one", "-two", "+2", " three"),),
            (patch("*** Update File: sub/inner.txt", "*** Move to: o.txt", "@@", "-inner", "+o"),),
            (patch("*** Delete File: dot.svg", "*** Add File: a.txt", "+a"),),
            _LISTING,
            _DONE,
        ]
    ),
    "patch of a missing file": Case(
        steps=[(patch("*** Update File: no.txt", "@@", "-a", "+b"),), _LISTING, _DONE]
    ),
    "delete of a missing file": Case(steps=[(patch("*** Delete File: no.txt"),), _LISTING, _DONE]),
    "patch that does not fit": Case(
        steps=[(patch("*** Update File: notes.txt", "@@", "-four", "+4"),), _LISTING, _DONE]
    ),
    "patch of what is not text": Case(
        steps=[
            (shell("printf 'caf\\351\\n' > latin.txt"),),
            (patch("*** Update File: latin.txt", "@@", "-caf", "+tea"),),
            _LISTING,
            _DONE,
        ]
    ),
    "patch outside": Case(steps=[(patch("*** Add File: ../out.txt", "+x"),), _LISTING, _DONE]),
    "patch of an absolute path": Case(
        steps=[(patch("*** Add File: /etc/out.txt", "+x"),), _LISTING, _DONE]
    ),
    "patch that is none": Case(
        steps=[
            (patch("*** Rename File: notes.txt"),),
            _LISTING,
            _DONE,
        ]
    ),
    "patch of which a part fails": Case(
        steps=[
            (patch("*** Add File: a.txt", "+a", "*** Delete File: no.txt"),),
            _LISTING,
            _DONE,
        ]
    ),
    "images": Case(
        steps=[
            (shell(f"echo {PNG} | base64 -d > pixel.png"),),
            (image("pixel.png"), image("dot.svg")),
            (image("missing.png"),),
            (image("notes.txt"),),
            _DONE,
        ]
    ),
    "binary file": Case(
        steps=[(image("pixel.png"),), _DONE], manifest=_pixel, manifest_of_the_run=True
    ),
    "image that is a directory": Case(steps=[(image("sub"),), _DONE]),
    "image outside": Case(steps=[(image("../pixel.png"),), _DONE]),
    "skills in the agent": Case(
        steps=[(shell("find .agents -type f | sort; cat .agents/*/SKILL.md"),), _DONE],
        capabilities=_inline_skills,
    ),
    "skills from the manifest": Case(
        steps=[(shell("cat .agents/*/SKILL.md"),), _DONE], capabilities=_skills_from_manifest
    ),
    "skills from a local directory": Case(
        steps=[(shell("cat .agents/*/SKILL.md .agents/*/words.txt"),), _DONE],
        capabilities=_skills_from_disk,
        manifest=_granted,
    ),
    "lazy skills": Case(
        steps=[
            (call("load_skill", skill_name="greeting"),),
            (call("load_skill", skill_name="greeting"),),
            (shell("cat .agents/*/SKILL.md .agents/*/words.txt"),),
            _DONE,
        ],
        capabilities=_lazy_skills,
        manifest=_granted,
    ),
    "lazy skills in a run's directory": Case(
        steps=[
            (call("load_skill", skill_name="greeting"),),
            (shell("cat ../.agents/*/SKILL.md"),),
            _DONE,
        ],
        capabilities=_lazy_skills,
        manifest=_granted,
        cwd="sub",
    ),
    "lazy skills from nowhere": Case(
        steps=[_DONE], capabilities=_no_lazy_skills, manifest=_granted
    ),
    "lazy skill that is not there": Case(
        steps=[(call("load_skill", skill_name="farewell"),), _DONE],
        capabilities=_lazy_skills,
        manifest=_granted,
    ),
    "memory that is read": Case(steps=[_DONE], capabilities=_memory_reader, manifest=_remembering),
    "memory that is made": Case(
        steps=[
            (shell("cat notes.txt"),),
            (say("first turn"),),
            (shell("find memories sessions -type f | sort"),),
            (shell("cat memories/raw_memories/*; cat memories/rollout_summaries/*"),),
            _DONE,
        ],
        turns=2,
        capabilities=_memory,
        snapshot=True,
    ),
    "memory of an unnamed run": Case(
        steps=[(shell("cat notes.txt"),), (say("done"),)], capabilities=_memory, group=None
    ),
    "memory, phase one": Case(steps=[(say(json.dumps(_REMEMBERED)),)]),
    "memory, phase two": Case(
        steps=[
            (shell("echo 'The user likes files.' > memories/memory_summary.md"),),
            (say("consolidated"),),
        ]
    ),
    "compaction": Case(
        steps=[
            (shell("echo before"),),
            (compacted(answers=1), shell("echo after")),
            (say("first turn"),),
            (shell("echo later"),),
            _DONE,
        ],
        turns=2,
        snapshot=True,
        capabilities=_compacting,
    ),
    "cwd": Case(
        steps=[
            (shell("pwd; ls"),),
            (shell("pwd", workdir=".."),),
            (patch("*** Update File: inner.txt", "@@", "-inner", "+changed"),),
            (patch("*** Update File: missing.txt", "@@", "-inner", "+changed"),),
            (image("dot.svg"), image("missing.png")),
            _DONE,
        ],
        cwd="sub",
    ),
    "cwd that is missing": Case(steps=[_DONE], cwd="missing"),
    "run as": Case(steps=[(shell("id -un"),), _DONE], run_as="nobody"),
    "no options": Case(steps=[(shell("cat notes.txt"),), _DONE], options=None),
    "exposed ports": Case(
        steps=[
            (call("resolve_port", port=8080),),
            (call("resolve_port", port=9090),),
            (call("list_directory", path="."), call("describe")),
            (call("list_directory", path="missing"),),
            _DONE,
        ],
        capabilities=_probing,
        options=UnixLocalSandboxClientOptions(exposed_ports=(8080,)),
    ),
    "two turns": Case(
        steps=[
            (shell("echo made > made.txt; echo edited > notes.txt"),),
            (say("first turn"),),
            (shell("cat made.txt notes.txt"),),
            _DONE,
        ],
        turns=2,
        snapshot=True,
    ),
    "approval": Case(steps=_ASKING, capabilities=_asking_for_cat, snapshot=True),
    "approval without a snapshot": Case(steps=_ASKING, capabilities=_asking_for_cat),
    "streamed": Case(
        steps=[
            (shell("cat notes.txt"),),
            (image("dot.svg"), shell("exit 3")),
            _LISTING,
            _DONE,
        ],
        streamed=True,
    ),
}
