"""Broken providers: labels."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import Mutant, api, client, provider

_FIND = "            if labels.items() <= sandbox.labels.items()"

LABELS = (
    client(
        "no labels",
        "labels.a_sandbox_is_found_from_its_creation_on",
        "sandbox_id = await self.api.create(self._labels)\n        # The",
        "sandbox_id = await self.api.create({})\n        # The",
    ),
    provider(
        "some of the labels",
        "labels.only_what_has_all_labels_is_found",
        _FIND,
        "            if labels.items() & sandbox.labels.items()",
    ),
    provider(
        "values that begin so",
        "labels.only_what_has_all_labels_is_found",
        _FIND,
        "            if all(sandbox.labels.get(k, '').startswith(v) for k, v in labels.items())",
    ),
    provider(
        "whatever is asked for",
        "labels.nothing_is_found_for_the_impossible",
        _FIND,
        "            if True",
    ),
    provider(
        "labels for all",
        "labels.an_unlabelled_sandbox_is_not_found",
        "        return client.labelled(labels)",
        "        client._labels = {**client._labels, **labels}\n        return client",
    ),
    api(
        "strips values",
        "labels.any_value_is_kept",
        '"labels": dict(labels)',
        '"labels": {k: v.strip() for k, v in labels.items()}',
    ),
    api(
        "cuts values",
        "labels.any_value_is_kept",
        '"labels": dict(labels)',
        '"labels": {k: v[:63] for k, v in labels.items()}',
    ),
    provider(
        "no time zone",
        "labels.the_time_of_creation_has_a_zone",
        "created=sandbox.created",
        "created=sandbox.created.replace(tzinfo=None)",
    ),
    provider(
        "a wrong time",
        "labels.the_time_of_creation_has_a_zone",
        "created=sandbox.created",
        "created=sandbox.created.replace(year=2000)",
    ),
    provider(
        "one page",
        "labels.all_pages_are_read",
        "in await client.api.list()",
        "in (await client.api.list())[-2:]",
    ),
    api(
        "relabels all of them away",
        "labels.relabelling_changes_what_it_names",
        "{**sandbox.labels, **labels}",
        "dict(labels)",
    ),
    api(
        "relabels nothing",
        "labels.relabelling_changes_what_it_names",
        "{**sandbox.labels, **labels}",
        "dict(sandbox.labels)",
    ),
    provider(
        "relabels everybody",
        "labels.relabelling_concerns_one_sandbox",
        "        await client.api.set_labels(sandbox_id, labels)",
        "        for sandbox in await client.api.list():\n            await client.api.set_labels(sandbox.id, labels)",
    ),
    client(
        "a replacement without labels",
        "labels.a_replacement_is_labelled",
        "            state.sandbox_id = await self.api.create(self._labels)",
        "            state.sandbox_id = await self.api.create({})",
    ),
    api(
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
