"""Broken providers: files."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import Mutant, api, client, session

_WRITE = "await asyncio.to_thread(Path(path).write_bytes, content)"
_READ = "return await asyncio.to_thread(Path(path).read_bytes)"

FILES = (
    api(
        "newlines of its own",
        "files.content_is_kept",
        _WRITE,
        _WRITE.replace("content)", "content.replace(b'\\r\\n', b'\\n'))"),
    ),
    api(
        "files of a megabyte at most",
        "files.a_file_may_be_large",
        _WRITE,
        _WRITE.replace("content)", "content[:1_000_000])"),
    ),
    api(
        "names that are stripped",
        "files.any_name_is_taken_as_it_is",
        _WRITE,
        _WRITE.replace("Path(path)", "Path(path.rstrip())"),
    ),
    session(
        "listings by line",
        "files.any_name_is_taken_as_it_is",
        "    async def ls(self, path, *, user=None):\n        return [e for e in await super().ls(path, user=user) if '\\n' not in e.path]\n",
    ),
    api(
        "writes at the end",
        "files.writing_replaces",
        _WRITE,
        "Path(path).open('ab').write(content)",
    ),
    session(
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
    api(
        "nothing for a missing file",
        "files.a_missing_file_is_said",
        _READ,
        "return Path(path).read_bytes() if Path(path).exists() else b''",
    ),
    api(
        "another error for a missing file",
        "files.a_missing_file_is_said",
        _READ,
        "return await self._read(path)\n\n    async def _read(self, path):\n        if not Path(path).exists():\n            raise KeyError(path)\n        return Path(path).read_bytes()",
    ),
    api(
        "nothing for a folder",
        "files.a_folder_is_no_file",
        _READ,
        "return b'' if Path(path).is_dir() else Path(path).read_bytes()",
    ),
    session(
        "hides files",
        "files.listings_say_what_there_is",
        "    async def ls(self, path, *, user=None):\n        return [e for e in await super().ls(path, user=user) if '/.' not in e.path]\n",
    ),
    session(
        "all are files",
        "files.listings_say_what_there_is",
        "    async def ls(self, path, *, user=None):\n        from dataclasses import replace\n        from agents.sandbox.files import EntryKind\n        return [replace(e, kind=EntryKind.FILE) for e in await super().ls(path, user=user)]\n",
    ),
    session(
        "nothing in a missing folder",
        "files.a_missing_folder_is_said",
        "    async def ls(self, path, *, user=None):\n        try:\n            return await super().ls(path, user=user)\n        except Exception:\n            return []\n",
    ),
    session(
        "makes parents unasked",
        "files.folders_are_made",
        "    async def mkdir(self, path, *, parents=False, user=None):\n        await super().mkdir(path, parents=True, user=user)\n",
    ),
    session(
        "removes folders unasked",
        "files.files_are_removed",
        "    async def rm(self, path, *, recursive=False, user=None):\n        await super().rm(path, recursive=True, user=user)\n",
    ),
    session(
        "takes a backslash for a slash",
        "files.a_backslash_is_no_separator",
        "    async def rm(self, path, *, recursive=False, user=None):\n        await super().rm(str(path).replace('\\\\', '/'), recursive=recursive, user=user)\n",
    ),
    session(
        "checks no paths",
        "files.no_path_leads_out",
        "    async def _validate_path_access(self, path, *, for_write=False):\n        from pathlib import Path\n        return Path(self.state.manifest.root) / path\n",
    ),
    session(
        "follows links",
        "files.no_link_leads_out",
        "    async def _validate_path_access(self, path, *, for_write=False):\n        from pathlib import Path\n        root = Path(self.state.manifest.root)\n        if '..' in str(path) or not (root / path).is_relative_to(root):\n            raise ValueError(path)\n        return root / path\n",
    ),
    session(
        "removes what a link leads to",
        "files.removing_a_link_keeps_its_target",
        "    async def rm(self, path, *, recursive=False, user=None):\n        from pathlib import Path\n        real = (Path(self.state.manifest.root) / path).resolve()\n        await super().rm(real, recursive=recursive, user=user)\n",
    ),
    session(
        "leaves files of the manifest out",
        "files.the_manifest_is_there",
        "    async def start(self):\n        await super().start()\n        await self._plain('rm', '-rf', self.state.manifest.root + '/empty-folder')\n",
    ),
    client(
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
    client(
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
    client(
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
