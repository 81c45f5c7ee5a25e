"""Broken providers: faults that only workers reveal."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import Mutant, api, client, provider, session
from contract.mutants.terminals import TERMINALS_METHODS

_FIND = "            if labels.items() <= sandbox.labels.items()"

_RUN = "        return await self._api.run("
_REFUSED = f"""\
        if any("sandbox-helper" in word for word in argv):
            return ExecResult(stdout=b"", stderr=b"", exit_code=126)
{_RUN}"""
"""Commands run by themselves, since what keeps them cannot."""

_DELETE = "        if await self.get(sandbox_id) is not None:"

DURABLE = (
    client("refuses the helper", "durable.a_command_survives_its_worker", _RUN, _REFUSED),
    Mutant(
        name="refuses the helper, with terminals",
        check="durable.a_process_survives_its_worker",
        methods=TERMINALS_METHODS,
        old=_RUN,
        new=_REFUSED,
    ),
    client(
        "refuses the helper, and a command takes too long",
        "durable.a_command_that_times_out_leaves_no_process",
        _RUN,
        _REFUSED,
    ),
    client(
        "refuses the helper, and a command is cancelled",
        "durable.a_cancelled_command_leaves_no_process",
        _RUN,
        _REFUSED,
    ),
    client(
        "runs a command twice",
        "durable.an_outage_of_temporal_is_ridden_out",
        _RUN,
        f"        argv = [word.replace('echo run', 'echo run; echo run') for word in argv]\n{_REFUSED}",
    ),
    provider(
        "one id for all, and a sandbox is lost",
        "durable.a_lost_workspace_is_said",
        "        return state.sandbox_id",
        '        return "sandbox"',
    ),
    api(
        "deletes nothing, of a create that is cancelled",
        "creates.a_cancelled_create_leaves_none",
        _DELETE,
        "        if False:",
    ),
    api(
        "deletes nothing, of a start that fails",
        "creates.a_first_start_that_fails_leaves_none",
        _DELETE,
        "        if False:",
    ),
    client(
        "no labels, and a worker that is killed",
        "creates.one_sandbox_is_left_of_a_create_whose_worker_is_killed",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    client(
        "no labels, and an answer that is lost",
        "creates.one_sandbox_is_left_of_a_create_whose_answer_is_lost",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    client(
        "no labels, and a create that is too slow",
        "creates.one_sandbox_is_left_of_a_create_that_is_too_slow",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    provider(
        "finds nothing, and has no room",
        "creates.a_create_waits_until_there_is_room",
        _FIND,
        "            if False",
    ),
    client(
        "no replacement, for who holds the session",
        "durable.a_lost_workspace_is_restored_by_its_worker",
        "        if await self.api.get(state.sandbox_id) is None:",
        "        if False:",
    ),
    provider(
        "destroys nothing, of another worker's",
        "durable.a_delete_by_another_worker_makes_none",
        "        await client.api.delete(sandbox_id)",
        "        return",
    ),
    provider(
        "destroys nothing, of orphans",
        "durable.only_orphans_are_reaped",
        "        await client.api.delete(sandbox_id)",
        "        return",
    ),
    provider(
        "exists never",
        "durable.an_edit_survives_its_worker",
        "return await client.api.get(sandbox_id) is not None",
        "return False",
    ),
    client(
        "no replacement",
        "durable.a_lost_workspace_is_restored",
        "        if await self.api.get(state.sandbox_id) is None:",
        "        if False:",
    ),
    client(
        "deletes nothing",
        "durable.what_is_deleted_stays_deleted",
        "        await self.api.delete(session.state.sandbox_id)",
        "        return session",
    ),
    session(
        "empties what is shut down",
        "durable.a_missing_workspace_is_not_empty",
        "    async def shutdown(self):\n        root = self.state.manifest.root\n        await self._plain('find', root, '-mindepth', '1', '-delete')\n        await super().shutdown()\n",
    ),
    api(
        "prints its environment",
        "durable.secrets_stay_on_the_worker",
        "        try:\n            process",
        "        print(environment, file=__import__('sys').stderr)\n        try:\n            process",
    ),
)
