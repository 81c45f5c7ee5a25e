"""Wrong providers, of what workers save, repeat and share."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import api, session

_DELETE = "        if await self.get(sandbox_id) is not None:"
_TRY = "        try:\n            process"

SAVED = (
    session(
        "makes no folder that is there",
        "repeats.a_second_attempt_ends_as_the_first",
        "    async def mkdir(self, path, *, parents=False, user=None):\n        from pathlib import Path\n        if (Path(self.state.manifest.root) / path).is_dir():\n            raise FileExistsError(path)\n        await super().mkdir(path, parents=parents, user=user)\n",
    ),
    session(
        "leaves out whatever has the name of what is left out",
        "saved.a_workspace_is_saved_whole",
        "    async def hydrate_workspace(self, data):\n        await super().hydrate_workspace(data)\n        await self._plain('rm', '-rf', self.state.manifest.root + '/src/cache')\n",
    ),
    session(
        "saves what was saved first",
        "saved.a_snapshot_is_never_changed",
        "    _first = None\n    async def persist_workspace(self):\n        import io\n        kind = type(self)\n        kind._first = kind._first or (await super().persist_workspace()).read()\n        return io.BytesIO(kind._first)\n",
    ),
    api(
        "deletes nothing, of a session that is resumed",
        "saved.a_deleted_sandbox_is_made_afresh",
        _DELETE,
        "        if False:",
    ),
    api(
        "a file is its name",
        "saved.files_are_named",
        _TRY,
        f'        argv = [word.replace(\'"$1" -ef "$2"\', \'"$1" = "$2"\') for word in argv]\n{_TRY}',
    ),
    api(
        "forgets what was appended",
        "shared.each_command_of_several_runs_once",
        _TRY,
        f"        lines = Path(cwd) / 'lines'\n        if lines.exists() and lines.stat().st_size > 60:\n            lines.unlink()\n{_TRY}",
    ),
)
