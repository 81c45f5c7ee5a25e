"""Broken providers: the distribution."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import Mutant, api, models, provider

_FUTURE = "from __future__ import annotations\n"

PACKAGE = (
    provider(
        "its name is not the entry point's",
        "package.the_entry_point_names_the_provider",
        '    name = "{name}"',
        '    name = "another"',
    ),
    provider(
        "of another contract version",
        "package.it_says_what_it_is",
        "api_version = 1",
        "api_version = 9",
    ),
    provider(
        "a summary of two lines", "package.it_says_what_it_is", 'summary = "', 'summary = "One\\n'
    ),
    models(
        "imports what it requires",
        "package.importing_it_is_light",
        _FUTURE,
        _FUTURE + "import hypothesis\n",
    ),
    models(
        "changes the environment",
        "package.importing_it_does_nothing",
        _FUTURE,
        _FUTURE + "import os\nos.environ['MUTANT'] = str(os.getpid())\n",
    ),
    models(
        "starts a thread",
        "package.importing_it_does_nothing",
        _FUTURE,
        _FUTURE
        + "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    ),
    provider(
        "labels that nobody can find",
        "package.abilities_are_whole",
        "async def find(",
        "async def _find(",
    ),
    provider(
        "a destroy without the client",
        "package.abilities_are_whole",
        "async def destroy(self, client: {Title}Client, sandbox_id: str)",
        "async def destroy(self, sandbox_id: str)",
    ),
    provider(
        "an exists that is not async",
        "package.abilities_are_whole",
        "    async def exists(self, client: {Title}Client, sandbox_id: str) -> bool:",
        "    def exists(self, client, sandbox_id):\n        return True\n\n    async def _unused(self, client, sandbox_id):",
    ),
    provider(
        "a misspelt destroy",
        "package.no_name_nearly_fits",
        "async def destroy(",
        "async def destory(",
    ),
    models(
        "options of another type than its own",
        "package.options_survive_the_wire",
        '"""The options that a workflow may set."""\n\n    type: Literal["{name}"] = "{name}"',
        '"""The options that a workflow may set."""\n\n    type: str = "{name}"',
    ),
    models(
        "a state of another type than its own",
        "package.states_are_registered",
        '"""The data needed to find the sandbox again."""\n\n    type: Literal["{name}"] = "{name}"',
        '"""The data needed to find the sandbox again."""\n\n    type: str = "{name}"',
    ),
    models(
        "a key in its state",
        "package.options_and_states_have_no_secrets",
        "    sandbox_id: str",
        '    sandbox_id: str\n    api_key: str = ""',
    ),
    api(
        "does not say what is missing",
        "package.a_missing_credential_is_named",
        "        home = os.environ.get(",
        '        if "MUTANT_KEY" not in os.environ:\n            raise RuntimeError("unauthorized")\n'
        "        home = os.environ.get(",
    ),
    Mutant(name="untyped", check="package.it_is_typed", without="py.typed"),
)
