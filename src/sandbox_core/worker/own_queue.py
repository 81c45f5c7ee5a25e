"""Assigns each worker its own task queue, which reaches the sessions on its host.

The queue's name consists of the shared queue, the host, and the worker's index on the host. An
index is a locked file: a worker that replaces a dead one takes over its index and so its queue.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sandbox_core.providers.private_folder import private_folder
from sandbox_core.wire.naming import split_worker_queue, worker_queue

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def own_queue(namespace: str, task_queue: str) -> Iterator[str]:
    """Yield the name of the calling worker's own queue, and reserve it within this context.

    Raises:
        OSError: The folder of the lock files is not writable, or others can write to it.
    """
    folder = _folder(namespace, task_queue)
    for index in count():
        lock = os.open(folder / f"{index}.lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield worker_queue(task_queue, socket.gethostname(), index)
        finally:
            os.close(lock)  # The file stays: deleting it would let two workers have one index.
        return


def is_gone(namespace: str, queue: str) -> bool:
    """Return whether the worker with this own queue was on this host, and is gone."""
    task_queue, host, index = split_worker_queue(queue)
    if host != socket.gethostname():
        return False
    try:
        lock = os.open(_folder(namespace, task_queue) / f"{index}.lock", os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return True
    try:
        # A worker that starts at this very moment takes the next index, which does no harm.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _folder(namespace: str, task_queue: str) -> Path:
    name = hashlib.sha256(f"{namespace}\0{task_queue}".encode()).hexdigest()[:16]
    return private_folder("slots", name)
