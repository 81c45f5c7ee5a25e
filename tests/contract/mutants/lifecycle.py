"""Broken providers: a sandbox's life cycle, from its creation to its deletion."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import api, client, models, provider

_GONE = '            raise ExecTransportError(command=argv, message="the sandbox no longer exists")'

LIFECYCLE = (
    provider(
        "one id for all",
        "lifecycle.the_identity_is_stable",
        "        return state.sandbox_id",
        '        return "sandbox"',
    ),
    provider(
        "an id that changes",
        "lifecycle.the_identity_is_stable",
        "        return state.sandbox_id",
        "        return f'{state.sandbox_id}-{state.workspace_root_ready}'",
    ),
    api(
        "sandboxes of one process",
        "lifecycle.a_state_is_resumed_by_another_client",
        "        return cls(Path(home))",
        "        return cls(Path(tempfile.mkdtemp(dir=home)))",
    ),
    client(
        "a resume that begins anew",
        "lifecycle.a_sandbox_is_used_by_two_sessions",
        "        return self._session(state)\n\n    async def delete",
        "        import shutil\n        from pathlib import Path\n        shutil.rmtree(self.api.root_of(state.sandbox_id))\n        Path(self.api.root_of(state.sandbox_id)).mkdir()\n        return self._session(state)\n\n    async def delete",
    ),
    models(
        "a state that is never the same",
        "lifecycle.a_state_outlives_its_process",
        "    sandbox_id: str",
        "    sandbox_id: str\n\n    @__import__('pydantic').computed_field\n    @property\n    def nonce(self) -> str:\n        return __import__('uuid').uuid4().hex",
    ),
    provider(
        "exists for ever",
        "lifecycle.a_gone_sandbox_is_not_passed_off",
        "return await client.api.get(sandbox_id) is not None",
        "return True",
    ),
    api(
        "runs where nothing is",
        "lifecycle.a_gone_sandbox_is_an_error",
        _GONE,
        "            return ExecResult(stdout=b'', stderr=b'', exit_code=0)",
    ),
    api(
        "a stopped sandbox like a broken one",
        "lifecycle.a_stopped_sandbox_goes_on",
        _GONE,
        f"{_GONE}\n        if (self._home / f'{{sandbox_id}}.stopped').exists():\n            raise ExecTransportError(command=argv, message='it does not run')",
    ),
    api(
        "a stopped sandbox that nobody starts",
        "lifecycle.a_stopped_sandbox_goes_on",
        _GONE,
        f"{_GONE}\n        if (self._home / f'{{sandbox_id}}.stopped').exists():\n            from sandbox_core.providers import SandboxStopped\n            raise SandboxStopped(command=argv, message='it does not run')",
    ),
    api(
        "a stopped sandbox that comes back empty",
        "lifecycle.a_stopped_sandbox_goes_on",
        _GONE,
        f"{_GONE}\n        if (self._home / f'{{sandbox_id}}.stopped').exists():\n            (self._home / sandbox_id / 'file').unlink(missing_ok=True)",
    ),
    client(
        "never runs",
        "lifecycle.running_tells_the_truth",
        "return await self._api.get(self.state.sandbox_id) is not None",
        "return False",
    ),
    api(
        "fails to delete twice",
        "lifecycle.ending_may_be_repeated",
        "            self._record(sandbox_id).unlink(missing_ok=True)",
        "            self._record(sandbox_id).unlink(missing_ok=True)\n        else:\n            raise RuntimeError('no such sandbox')",
    ),
    provider(
        "exists the other way round",
        "lifecycle.exists_tells_the_truth",
        "return await client.api.get(sandbox_id) is not None",
        "return await client.api.get(sandbox_id) is None",
    ),
    api(
        "no where nobody answers",
        "lifecycle.no_answer_is_not_no",
        "        Path(home).mkdir(mode=0o700, parents=True, exist_ok=True)\n",
        "",
    ),
    api(
        "all is well",
        "lifecycle.check_finds_an_unreachable_backend",
        "        Path(home).mkdir(mode=0o700, parents=True, exist_ok=True)\n",
        "",
    ),
    provider(
        "destroys nothing",
        "lifecycle.destroy_deletes",
        "        await client.api.delete(sandbox_id)",
        "        return",
    ),
    client(
        "deletes what was started",
        "lifecycle.a_failed_start_can_be_cleaned_up",
        "        await self.api.delete(session.state.sandbox_id)",
        "        if session.state.workspace_root_ready:\n            await self.api.delete(session.state.sandbox_id)",
    ),
    api(
        "leaves records",
        "lifecycle.deleting_leaves_nothing",
        "            self._record(sandbox_id).unlink(missing_ok=True)",
        "            pass",
    ),
    api(
        "one folder for all",
        "lifecycle.sandboxes_are_apart",
        "return str(self._home / sandbox_id)",
        "return str(self._home)",
    ),
    provider(
        "no default and no word",
        "lifecycle.the_default_options_are_enough",
        "    def create_client(",
        "    def default_options(self):\n        raise ValueError\n\n    def create_client(",
    ),
)
