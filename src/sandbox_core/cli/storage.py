"""`sandbox-core storage gc`: deletes stored objects that are no longer needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import typer
from rich.filesize import decimal

from sandbox_core.cli.connection import connect, server_errors
from sandbox_core.cli.durations import format_duration
from sandbox_core.config import load_configuration
from sandbox_core.errors import StorageError
from sandbox_core.storage.gc.collect import Folder, delete_unneeded, find_unneeded
from sandbox_core.storage.location import STORAGE_VARIABLE, Location, choose_location
from sandbox_core.storage.object_store import ObjectStore, StoredObject


async def collect_garbage(
    *,
    storage: str | None,
    older_than: timedelta,
    snapshots_older_than: timedelta | None,
    delete: bool,
    address: str | None,
    namespaces: Sequence[str],
) -> int:
    """List or delete unneeded objects; return 1 if one could not be deleted, otherwise 0.

    Raises:
        StorageError: It cannot be determined what is needed, or the store does not answer.
        ServerUnavailable: Temporal does not answer, or refuses.
    """
    location = choose_location(storage, load_configuration())
    _check_exists(location)
    store = ObjectStore(location)
    named: Sequence[str | None] = namespaces or [None]
    clients = [await connect(address, namespace) for namespace in named]
    typer.echo(
        f"Storage    {store.url}\n"
        f"Temporal   {clients[0].service_client.config.target_host}\n"
        f"Namespaces {', '.join(client.namespace for client in clients)}"
    )
    with server_errors(*clients):
        payloads, snapshots = await find_unneeded(
            store,
            clients,
            now=datetime.now(timezone.utc),
            older_than=older_than,
            snapshots_older_than=snapshots_older_than,
        )
    spared = "that nothing refers to" if snapshots_older_than is None else "too young"
    failed = 0
    for name, folder, others in (
        ("Payloads", payloads, "too young"),
        ("Snapshots", snapshots, spared),
    ):
        done = await _delete(store, folder) if delete else _show(folder)
        failed += len(done.get("could not be deleted", []))
        stay = {"needed": folder.needed, others: folder.young, "with other names": folder.foreign}
        parts = [f"{_total(found)} {what}" for what, found in {**done, **stay}.items() if found]
        typer.echo(f"{name}: {', '.join(parts) or 'none'}")
    if snapshots_older_than is None and snapshots.young:
        typer.echo(
            "No snapshot is deleted without --snapshots-older-than: a state saved outside "
            "Temporal may need it."
        )
    if not delete:
        typer.echo("Nothing was deleted. Use --delete to delete unused objects.")
    return int(failed > 0)


def _check_exists(location: Location) -> None:
    if location.kind == "memory":
        raise StorageError(f"storage {location.url}: it is in the memory of a worker.")
    if location.kind == "directory" and not Path(location.path).is_dir():
        raise StorageError(
            f"storage {location.url}: there is no such directory. Set the workers' storage with "
            f"--storage or {STORAGE_VARIABLE}."
        )


def _show(folder: Folder) -> dict[str, Sequence[StoredObject]]:
    for stored in folder.unneeded:
        typer.echo(_line(stored))
    return {"not needed": folder.unneeded}


async def _delete(store: ObjectStore, folder: Folder) -> dict[str, Sequence[StoredObject]]:
    deleted: list[StoredObject] = []
    failed: list[StoredObject] = []
    rewritten: list[StoredObject] = []
    async for outcome in delete_unneeded(store, folder):
        if outcome.result == "deleted":
            deleted.append(outcome.stored)
            typer.echo(_line(outcome.stored))
        elif outcome.result == "failed":
            failed.append(outcome.stored)
            typer.echo(f"not deleted: {outcome.stored.key}: {outcome.detail}", err=True)
        else:
            rewritten.append(outcome.stored)
    return {
        "deleted": deleted,
        "could not be deleted": failed,
        "stored again meanwhile": rewritten,
    }


def _line(stored: StoredObject) -> str:
    age = datetime.now(timezone.utc) - stored.modified
    return f"  {stored.key}  {decimal(stored.size)}  {format_duration(age)}"


def _total(objects: Sequence[StoredObject]) -> str:
    return f"{len(objects):,} ({decimal(sum(stored.size for stored in objects))})"
