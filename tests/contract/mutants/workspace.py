"""Broken providers: saved workspaces."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import api, session

_READ = "return await asyncio.to_thread(Path(path).read_bytes)"

WORKSPACE = (
    session(
        "loses modes",
        "workspace.a_workspace_comes_back_as_it_was",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('chmod', '-R', '755', self.state.manifest.root)\n",
    ),
    session(
        "loses links",
        "workspace.a_workspace_comes_back_as_it_was",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('find', self.state.manifest.root, '-type', 'l', '-delete')\n",
    ),
    session(
        "saves what it does not restore",
        "workspace.a_special_file_does_not_spoil_the_archive",
        "    async def hydrate_workspace(self, data):\n        content = data.read()\n        if b'queue' in content:\n            raise RuntimeError('a FIFO')\n        data.seek(0)\n        await super().hydrate_workspace(data)\n",
    ),
    session(
        "unpacks anything",
        "workspace.an_archive_of_another_does_not_lead_out",
        "    async def hydrate_workspace(self, data):\n        await self.write_file('/tmp/mutant.tar', data.read())\n        root = self.state.manifest.root\n        await self._plain('tar', '-C', root, '-xPf', '/tmp/mutant.tar')\n",
    ),
    session(
        "saves nothing",
        "workspace.a_snapshot_is_restored_in_a_new_sandbox",
        "    async def stop(self):\n        return None\n",
    ),
    session(
        "loses names",
        "workspace.hydrating_keeps_names_of_any_kind",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('rm', '-f', self.state.manifest.root + '/new\\nline')\n",
    ),
    api(
        "reads 10 MB at most",
        "workspace.a_workspace_may_be_large",
        _READ,
        "return Path(path).read_bytes()[:10_000_000]",
    ),
    session(
        "saves all",
        "workspace.skipped_paths_are_not_saved",
        "    def _persist_workspace_skip_relpaths(self):\n        return set()\n",
    ),
)
