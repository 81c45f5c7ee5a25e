"""Wrong providers: each is the one that ``sandbox-core new`` writes, with one fault put in.

A fault is a text of one of its files and what stands there instead, or methods that its session
gets. The check that has to find it is named beside it.
"""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault."""

    name: str
    check: str
    file: str = "client.py"
    old: str = ""
    new: str = ""
    methods: str = ""
    """Added to the session's class; `super()` is what was there."""

    @property
    def is_durable(self) -> bool:
        """Whether it takes workers to find it."""
        return self.check.startswith(("creates.", "durable."))


def _api(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, file="api.py", old=old, new=new)


def _provider(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, file="__init__.py", old=old, new=new)


def _models(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, file="models.py", old=old, new=new)


def _client(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, old=old, new=new)


def _session(name: str, check: str, methods: str) -> Mutant:
    return Mutant(name=name, check=check, methods=methods)


_RESULT = "return ExecResult(stdout=stdout, stderr=stderr, exit_code=process.returncode or 0)"
_FUTURE = "from __future__ import annotations\n"

_PACKAGE = (
    _provider(
        "its name is not the entry point's",
        "package.the_entry_point_names_the_provider",
        '    name = "{name}"',
        '    name = "another"',
    ),
    _provider(
        "of another contract version",
        "package.it_says_what_it_is",
        "api_version = 1",
        "api_version = 9",
    ),
    _provider(
        "a summary of two lines", "package.it_says_what_it_is", 'summary = "', 'summary = "One\\n'
    ),
    _models(
        "imports what it requires",
        "package.importing_it_is_light",
        _FUTURE,
        _FUTURE + "import hypothesis\n",
    ),
    _models(
        "changes the environment",
        "package.importing_it_does_nothing",
        _FUTURE,
        _FUTURE + "import os\nos.environ['MUTANT'] = str(os.getpid())\n",
    ),
    _models(
        "starts a thread",
        "package.importing_it_does_nothing",
        _FUTURE,
        _FUTURE
        + "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    ),
    _provider(
        "labels that nobody can find",
        "package.abilities_are_whole",
        "async def find(",
        "async def _find(",
    ),
    _provider(
        "a destroy without the client",
        "package.abilities_are_whole",
        "async def destroy(self, client: {Title}Client, sandbox_id: str)",
        "async def destroy(self, sandbox_id: str)",
    ),
    _provider(
        "an exists that is not async",
        "package.abilities_are_whole",
        "    async def exists(self, client: {Title}Client, sandbox_id: str) -> bool:",
        "    def exists(self, client, sandbox_id):\n        return True\n\n    async def _unused(self, client, sandbox_id):",
    ),
    _provider(
        "a misspelt destroy",
        "package.no_name_nearly_fits",
        "async def destroy(",
        "async def destory(",
    ),
    _models(
        "options of another type than its own",
        "package.options_survive_the_wire",
        '"""What a workflow may choose."""\n\n    type: Literal["{name}"] = "{name}"',
        '"""What a workflow may choose."""\n\n    type: str = "{name}"',
    ),
    _models(
        "a state of another type than its own",
        "package.states_are_registered",
        '"""What is needed to find a sandbox again."""\n\n    type: Literal["{name}"] = "{name}"',
        '"""What is needed to find a sandbox again."""\n\n    type: str = "{name}"',
    ),
    _models(
        "a key in its state",
        "package.options_and_states_have_no_secrets",
        "    sandbox_id: str",
        '    sandbox_id: str\n    api_key: str = ""',
    ),
    _api(
        "does not say what is missing",
        "package.a_missing_credential_is_named",
        "        home = os.environ.get(",
        '        if "MUTANT_KEY" not in os.environ:\n            raise RuntimeError("unauthorized")\n'
        "        home = os.environ.get(",
    ),
)

_COMMANDS = (
    _api(
        "streams together",
        "commands.streams_come_apart",
        _RESULT,
        _RESULT.replace("stdout=stdout, stderr=stderr", 'stdout=stdout + stderr, stderr=b""'),
    ),
    _api(
        "exit codes of 0 and 1",
        "commands.exit_codes_are_the_commands",
        _RESULT,
        _RESULT.replace("process.returncode or 0", "int(bool(process.returncode))"),
    ),
    _api(
        "output as text",
        "commands.binary_output_is_whole",
        _RESULT,
        _RESULT.replace("stdout=stdout", 'stdout=stdout.decode(errors="replace").encode()'),
    ),
    _api(
        "output that is cut",
        "commands.large_output_is_whole",
        _RESULT,
        _RESULT.replace("stdout=stdout", "stdout=stdout[:1_000_000]"),
    ),
    _api(
        "output that is stripped",
        "commands.output_is_not_touched",
        _RESULT,
        _RESULT.replace("stdout=stdout", "stdout=stdout.strip()"),
    ),
    _api(
        "no empty arguments",
        "commands.arguments_arrive_unchanged",
        "                *argv,",
        "                *(a for a in argv if a),",
    ),
    _api(
        "arguments that are cut",
        "commands.an_argument_may_be_long",
        "                *argv,",
        "                *(a[:65536] for a in argv),",
    ),
    _api(
        "always its own shell",
        "commands.a_shell_may_be_chosen",
        "        try:\n            process",
        "        if list(argv[:2]) == ['sh', '-c'] and len(argv) == 3:\n            argv = ['sh', '-n', '-c', argv[2]]\n        try:\n            process",
    ),
    _api(
        "runs elsewhere",
        "commands.commands_run_in_the_workspace",
        "cwd=cwd,",
        'cwd=cwd if "where" not in argv[-1] else "/tmp",',
    ),
    _api(
        "drops variables in lower case",
        "commands.the_environment_is_the_manifests",
        "**environment}",
        "**{k: v for k, v in environment.items() if k.isupper()}}",
    ),
    _api(
        "quotes variables",
        "commands.the_environment_is_the_manifests",
        "**environment}",
        "**{k: v.strip() for k, v in environment.items()}}",
    ),
    _api(
        "a stdin that stays open",
        "commands.stdin_is_closed",
        "stdin=asyncio.subprocess.DEVNULL,",
        'stdin=os.pipe()[0] if argv[-1].startswith("cat;") else asyncio.subprocess.DEVNULL,',
    ),
    _api(
        "a missing program as success",
        "commands.a_missing_program_is_said",
        "            raise ExecTransportError(command=argv, cause=error) from error",
        '            return ExecResult(stdout=b"", stderr=b"", exit_code=0)',
    ),
    _api(
        "a time-out of its own class",
        "commands.a_timeout_is_kept",
        "raise ExecTimeoutError(command=argv, timeout_s=timeout, cause=error)",
        'raise RuntimeError("too slow")',
    ),
    _api(
        "a time-out that breaks the sandbox",
        "commands.a_timeout_is_kept",
        "raise ExecTimeoutError(command=argv",
        "self._home = Path('/gone')\n            raise ExecTimeoutError(command=argv",
    ),
    _api(
        "a cancellation that breaks the sandbox",
        "commands.a_cancelled_call_leaves_the_session_usable",
        "        finally:\n            if process",
        "        except asyncio.CancelledError:\n            self._home = Path('/gone')\n            raise\n        finally:\n            if process",
    ),
    _api(
        "a signal as success",
        "commands.a_signal_is_not_success",
        _RESULT,
        _RESULT.replace("process.returncode or 0", "max(process.returncode or 0, 0)"),
    ),
    _api(
        "one command at a time",
        "commands.commands_run_at_once",
        "            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
        "            if len(argv) == 4 and len(argv[2]) > 60 and argv[3] == '7':\n                raise ExecTransportError(command=argv)\n            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
    ),
    _api(
        "ends what a command leaves",
        "commands.background_processes_outlive_their_call",
        f"        {_RESULT}",
        f"        try:\n            os.killpg(process.pid, signal.SIGKILL)\n        except ProcessLookupError:\n            pass\n        {_RESULT}",
    ),
    _api(
        "a /tmp for each call",
        "commands.tmp_stays_between_calls",
        "                *argv,",
        "                *(a.replace('/tmp/check-', f'/tmp/{uuid.uuid4().hex}-') for a in argv),",
    ),
    _api(
        "runs as whoever it is",
        "commands.an_unknown_user_is_refused",
        "        try:\n            process",
        "        argv = argv[4:] if argv[0] == 'sudo' else argv\n        try:\n            process",
    ),
    _api(
        "blocks the loop",
        "commands.the_event_loop_stays_free",
        "            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
        "            if 'sleep 3' in argv[-1]:\n                __import__('time').sleep(2)\n            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
    ),
)

_WRITE = "await asyncio.to_thread(Path(path).write_bytes, content)"
_READ = "return await asyncio.to_thread(Path(path).read_bytes)"

_FILES = (
    _api(
        "newlines of its own",
        "files.content_is_kept",
        _WRITE,
        _WRITE.replace("content)", "content.replace(b'\\r\\n', b'\\n'))"),
    ),
    _api(
        "files of a megabyte at most",
        "files.a_file_may_be_large",
        _WRITE,
        _WRITE.replace("content)", "content[:1_000_000])"),
    ),
    _api(
        "names that are stripped",
        "files.any_name_is_taken_as_it_is",
        _WRITE,
        _WRITE.replace("Path(path)", "Path(path.rstrip())"),
    ),
    _session(
        "listings by line",
        "files.any_name_is_taken_as_it_is",
        "    async def ls(self, path, *, user=None):\n        return [e for e in await super().ls(path, user=user) if '\\n' not in e.path]\n",
    ),
    _api(
        "writes at the end",
        "files.writing_replaces",
        _WRITE,
        "Path(path).open('ab').write(content)",
    ),
    _session(
        "makes no folders",
        "files.writing_makes_the_folders",
        "    async def _plain(self, *argv):\n        if argv[0] == 'mkdir' and 'b c' in argv[-1]:\n            argv = ('true',)\n        return await super()._plain(*argv)\n",
    ),
    Mutant(
        name="files apart from those of commands",
        check="files.commands_and_calls_share_files",
        file="api.py",
        old=_WRITE,
        new=_WRITE.replace("Path(path)", "Path(path + '~')"),
    ),
    _api(
        "nothing for a missing file",
        "files.a_missing_file_is_said",
        _READ,
        "return Path(path).read_bytes() if Path(path).exists() else b''",
    ),
    _api(
        "another error for a missing file",
        "files.a_missing_file_is_said",
        _READ,
        "return await self._read(path)\n\n    async def _read(self, path):\n        if not Path(path).exists():\n            raise KeyError(path)\n        return Path(path).read_bytes()",
    ),
    _api(
        "nothing for a folder",
        "files.a_folder_is_no_file",
        _READ,
        "return b'' if Path(path).is_dir() else Path(path).read_bytes()",
    ),
    _session(
        "hides files",
        "files.listings_say_what_there_is",
        "    async def ls(self, path, *, user=None):\n        return [e for e in await super().ls(path, user=user) if '/.' not in e.path]\n",
    ),
    _session(
        "all are files",
        "files.listings_say_what_there_is",
        "    async def ls(self, path, *, user=None):\n        from dataclasses import replace\n        from agents.sandbox.files import EntryKind\n        return [replace(e, kind=EntryKind.FILE) for e in await super().ls(path, user=user)]\n",
    ),
    _session(
        "nothing in a missing folder",
        "files.a_missing_folder_is_said",
        "    async def ls(self, path, *, user=None):\n        try:\n            return await super().ls(path, user=user)\n        except Exception:\n            return []\n",
    ),
    _session(
        "makes parents unasked",
        "files.folders_are_made",
        "    async def mkdir(self, path, *, parents=False, user=None):\n        await super().mkdir(path, parents=True, user=user)\n",
    ),
    _session(
        "removes folders unasked",
        "files.files_are_removed",
        "    async def rm(self, path, *, recursive=False, user=None):\n        await super().rm(path, recursive=True, user=user)\n",
    ),
    _session(
        "takes a backslash for a slash",
        "files.a_backslash_is_no_separator",
        "    async def rm(self, path, *, recursive=False, user=None):\n        await super().rm(str(path).replace('\\\\', '/'), recursive=recursive, user=user)\n",
    ),
    _session(
        "checks no paths",
        "files.no_path_leads_out",
        "    async def _validate_path_access(self, path, *, for_write=False):\n        from pathlib import Path\n        return Path(self.state.manifest.root) / path\n",
    ),
    _session(
        "follows links",
        "files.no_link_leads_out",
        "    async def _validate_path_access(self, path, *, for_write=False):\n        from pathlib import Path\n        root = Path(self.state.manifest.root)\n        if '..' in str(path) or not (root / path).is_relative_to(root):\n            raise ValueError(path)\n        return root / path\n",
    ),
    _session(
        "removes what a link leads to",
        "files.removing_a_link_keeps_its_target",
        "    async def rm(self, path, *, recursive=False, user=None):\n        from pathlib import Path\n        real = (Path(self.state.manifest.root) / path).resolve()\n        await super().rm(real, recursive=recursive, user=user)\n",
    ),
    _session(
        "leaves files of the manifest out",
        "files.the_manifest_is_there",
        "    async def start(self):\n        await super().start()\n        await self._plain('rm', '-rf', self.state.manifest.root + '/empty-folder')\n",
    ),
    _client(
        "extracts nothing",
        "files.archives_are_extracted",
        "        return self._wrap_session({Title}Session(state, self.api))",
        "        session = self._wrap_session({Title}Session(state, self.api))\n"
        "        plain = session.extract\n"
        "        async def changed(*args, **kwargs):\n"
        "            return None\n"
        "        session.extract = changed\n"
        "        return session",
    ),
    _client(
        "skips what is unsafe",
        "files.an_archive_does_not_lead_out",
        "        return self._wrap_session({Title}Session(state, self.api))",
        "        session = self._wrap_session({Title}Session(state, self.api))\n"
        "        plain = session.extract\n"
        "        async def changed(*args, **kwargs):\n"
        "            try:\n"
        "                await plain(*args, **kwargs)\n"
        "            except Exception:\n"
        "                pass\n"
        "        session.extract = changed\n"
        "        return session",
    ),
    _client(
        "patches nothing",
        "files.patches_are_applied",
        "        return self._wrap_session({Title}Session(state, self.api))",
        "        session = self._wrap_session({Title}Session(state, self.api))\n"
        "        plain = session.apply_patch\n"
        "        async def changed(*args, **kwargs):\n"
        "            return 'Done!'\n"
        "        session.apply_patch = changed\n"
        "        return session",
    ),
)

_WORKSPACE = (
    _session(
        "loses modes",
        "workspace.a_workspace_comes_back_as_it_was",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('chmod', '-R', '755', self.state.manifest.root)\n",
    ),
    _session(
        "loses links",
        "workspace.a_workspace_comes_back_as_it_was",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('find', self.state.manifest.root, '-type', 'l', '-delete')\n",
    ),
    _session(
        "saves what it does not restore",
        "workspace.a_special_file_does_not_spoil_the_archive",
        "    async def hydrate_workspace(self, data):\n        content = data.read()\n        if b'queue' in content:\n            raise RuntimeError('a FIFO')\n        data.seek(0)\n        await super().hydrate_workspace(data)\n",
    ),
    _session(
        "unpacks anything",
        "workspace.an_archive_of_another_does_not_lead_out",
        "    async def hydrate_workspace(self, data):\n        await self.write_file('/tmp/mutant.tar', data.read())\n        root = self.state.manifest.root\n        await self._plain('tar', '-C', root, '-xPf', '/tmp/mutant.tar')\n",
    ),
    _session(
        "saves nothing",
        "workspace.a_snapshot_is_restored_in_a_new_sandbox",
        "    async def stop(self):\n        return None\n",
    ),
    _session(
        "loses names",
        "workspace.hydrating_keeps_names_of_any_kind",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('rm', '-f', self.state.manifest.root + '/new\\nline')\n",
    ),
    _api(
        "reads 10 MB at most",
        "workspace.a_workspace_may_be_large",
        _READ,
        "return Path(path).read_bytes()[:10_000_000]",
    ),
    _session(
        "saves all",
        "workspace.skipped_paths_are_not_saved",
        "    def _persist_workspace_skip_relpaths(self):\n        return set()\n",
    ),
)

_GONE = '            raise ExecTransportError(command=argv, message="the sandbox no longer exists")'

_LIFECYCLE = (
    _provider(
        "one id for all",
        "lifecycle.the_identity_is_stable",
        "        return state.sandbox_id",
        '        return "sandbox"',
    ),
    _provider(
        "an id that changes",
        "lifecycle.the_identity_is_stable",
        "        return state.sandbox_id",
        "        return f'{state.sandbox_id}-{state.workspace_root_ready}'",
    ),
    _api(
        "sandboxes of one process",
        "lifecycle.a_state_is_resumed_by_another_client",
        "        return cls(Path(home))",
        "        return cls(Path(tempfile.mkdtemp(dir=home)))",
    ),
    _client(
        "a resume that begins anew",
        "lifecycle.a_sandbox_is_used_by_two_sessions",
        "        return self._session(state)\n\n    async def delete",
        "        import shutil\n        from pathlib import Path\n        shutil.rmtree(self.api.root_of(state.sandbox_id))\n        Path(self.api.root_of(state.sandbox_id)).mkdir()\n        return self._session(state)\n\n    async def delete",
    ),
    _models(
        "a state that is never the same",
        "lifecycle.a_state_outlives_its_process",
        "    sandbox_id: str",
        "    sandbox_id: str\n\n    @__import__('pydantic').computed_field\n    @property\n    def nonce(self) -> str:\n        return __import__('uuid').uuid4().hex",
    ),
    _provider(
        "exists for ever",
        "lifecycle.a_gone_sandbox_is_not_passed_off",
        "return await client.api.get(sandbox_id) is not None",
        "return True",
    ),
    _api(
        "runs where nothing is",
        "lifecycle.a_gone_sandbox_is_an_error",
        _GONE,
        "            return ExecResult(stdout=b'', stderr=b'', exit_code=0)",
    ),
    _client(
        "never runs",
        "lifecycle.running_tells_the_truth",
        "return await self._api.get(self.state.sandbox_id) is not None",
        "return False",
    ),
    _api(
        "fails to delete twice",
        "lifecycle.ending_may_be_repeated",
        "            self._record(sandbox_id).unlink(missing_ok=True)",
        "            self._record(sandbox_id).unlink(missing_ok=True)\n        else:\n            raise RuntimeError('no such sandbox')",
    ),
    _provider(
        "exists the other way round",
        "lifecycle.exists_tells_the_truth",
        "return await client.api.get(sandbox_id) is not None",
        "return await client.api.get(sandbox_id) is None",
    ),
    _api(
        "no where nobody answers",
        "lifecycle.no_answer_is_not_no",
        "        Path(home).mkdir(mode=0o700, parents=True, exist_ok=True)\n",
        "",
    ),
    _api(
        "all is well",
        "lifecycle.check_finds_an_unreachable_backend",
        "        Path(home).mkdir(mode=0o700, parents=True, exist_ok=True)\n",
        "",
    ),
    _provider(
        "destroys nothing",
        "lifecycle.destroy_deletes",
        "        await client.api.delete(sandbox_id)",
        "        return",
    ),
    _client(
        "deletes what was started",
        "lifecycle.a_failed_start_can_be_cleaned_up",
        "        await self.api.delete(session.state.sandbox_id)",
        "        if session.state.workspace_root_ready:\n            await self.api.delete(session.state.sandbox_id)",
    ),
    _api(
        "leaves records",
        "lifecycle.deleting_leaves_nothing",
        "            self._record(sandbox_id).unlink(missing_ok=True)",
        "            pass",
    ),
    _api(
        "one folder for all",
        "lifecycle.sandboxes_are_apart",
        "return str(self._home / sandbox_id)",
        "return str(self._home)",
    ),
    _provider(
        "no default and no word",
        "lifecycle.the_default_options_are_enough",
        "    def create_client(",
        "    def default_options(self):\n        raise ValueError\n\n    def create_client(",
    ),
)

_FIND = "            if labels.items() <= sandbox.labels.items()"

_LABELS = (
    _client(
        "no labels",
        "labels.a_sandbox_is_found_from_its_creation_on",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    _provider(
        "some of the labels",
        "labels.only_what_has_all_labels_is_found",
        _FIND,
        "            if labels.items() & sandbox.labels.items()",
    ),
    _provider(
        "values that begin so",
        "labels.only_what_has_all_labels_is_found",
        _FIND,
        "            if all(sandbox.labels.get(k, '').startswith(v) for k, v in labels.items())",
    ),
    _provider(
        "whatever is asked for",
        "labels.nothing_is_found_for_the_impossible",
        _FIND,
        "            if True",
    ),
    _client(
        "labels for all",
        "labels.an_unlabelled_sandbox_is_not_found",
        "made = copy.copy(self)",
        "made = self",
    ),
    _api(
        "strips values",
        "labels.any_value_is_kept",
        '"labels": dict(labels)',
        '"labels": {k: v.strip() for k, v in labels.items()}',
    ),
    _api(
        "cuts values",
        "labels.any_value_is_kept",
        '"labels": dict(labels)',
        '"labels": {k: v[:63] for k, v in labels.items()}',
    ),
    _provider(
        "no time zone",
        "labels.the_time_of_creation_has_a_zone",
        "created=sandbox.created",
        "created=sandbox.created.replace(tzinfo=None)",
    ),
    _provider(
        "a wrong time",
        "labels.the_time_of_creation_has_a_zone",
        "created=sandbox.created",
        "created=sandbox.created.replace(year=2000)",
    ),
    _provider(
        "one page",
        "labels.all_pages_are_read",
        "in await client.api.list()",
        "in (await client.api.list())[-2:]",
    ),
    _api(
        "relabels all of them away",
        "labels.relabelling_changes_what_it_names",
        "{**sandbox.labels, **labels}",
        "dict(labels)",
    ),
    _api(
        "relabels nothing",
        "labels.relabelling_changes_what_it_names",
        "{**sandbox.labels, **labels}",
        "dict(sandbox.labels)",
    ),
    _provider(
        "relabels everybody",
        "labels.relabelling_concerns_one_sandbox",
        "        await client.api.set_labels(sandbox_id, labels)",
        "        for sandbox in await client.api.list():\n            await client.api.set_labels(sandbox.id, labels)",
    ),
    _client(
        "a replacement without labels",
        "labels.a_replacement_is_labelled",
        "            state.sandbox_id = await self.api.create(self._labels)",
        "            state.sandbox_id = await self.api.create({})",
    ),
    _api(
        "finds what is deleted",
        "labels.what_is_destroyed_is_not_found",
        "            self._record(sandbox_id).unlink(missing_ok=True)",
        "            pass",
    ),
    Mutant(
        name="finds what runs",
        check="labels.what_does_not_run_is_found",
        file="__init__.py",
        old=_FIND,
        new=_FIND + "\n            and 'off' not in sandbox.labels",
        methods="    async def shutdown(self):\n        await super().shutdown()\n        await self._api.set_labels(self.state.sandbox_id, {'off': '1'})\n",
    ),
    Mutant(
        name="labels in the state",
        check="labels.the_state_does_not_hold_them",
        old="                sandbox_id=sandbox_id,\n",
        new="                sandbox_id=sandbox_id + '|' * 0,\n                exposed_ports=(),\n                snapshot_fingerprint=str(self._labels),\n",
    ),
)

_DURABLE = (
    _client(
        "no labels, and a worker that is killed",
        "creates.one_sandbox_is_left_of_a_create_whose_worker_is_killed",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    _client(
        "no labels, and an answer that is lost",
        "creates.one_sandbox_is_left_of_a_create_whose_answer_is_lost",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    _client(
        "no labels, and a create that is too slow",
        "creates.one_sandbox_is_left_of_a_create_that_is_too_slow",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    _provider(
        "finds nothing, and has no room",
        "creates.a_create_waits_until_there_is_room",
        _FIND,
        "            if False",
    ),
    _client(
        "no replacement, for who holds the session",
        "durable.a_lost_workspace_is_restored_by_its_worker",
        "        if await self.api.get(state.sandbox_id) is None:",
        "        if False:",
    ),
    _provider(
        "destroys nothing, of another worker's",
        "durable.a_delete_by_another_worker_makes_none",
        "        await client.api.delete(sandbox_id)",
        "        return",
    ),
    _provider(
        "destroys nothing, of orphans",
        "durable.only_orphans_are_reaped",
        "        await client.api.delete(sandbox_id)",
        "        return",
    ),
    _provider(
        "exists never",
        "durable.an_edit_survives_its_worker",
        "return await client.api.get(sandbox_id) is not None",
        "return False",
    ),
    _client(
        "no replacement",
        "durable.a_lost_workspace_is_restored",
        "        if await self.api.get(state.sandbox_id) is None:",
        "        if False:",
    ),
    _client(
        "deletes nothing",
        "durable.what_is_deleted_stays_deleted",
        "        await self.api.delete(session.state.sandbox_id)",
        "        return session",
    ),
    _api(
        "prints its environment",
        "durable.secrets_stay_on_the_worker",
        "        try:\n            process",
        "        print(environment, file=__import__('sys').stderr)\n        try:\n            process",
    ),
)

MUTANTS = (*_PACKAGE, *_COMMANDS, *_FILES, *_WORKSPACE, *_LIFECYCLE, *_LABELS, *_DURABLE)
