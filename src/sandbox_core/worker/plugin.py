"""`SandboxPlugin`: adds sandbox-core to a Temporal client or worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import temporalio.client
import temporalio.worker
from temporalio.client import ClientConfig, WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.service import ConnectConfig, RPCError, ServiceClient
from temporalio.worker import (
    Replayer,
    ReplayerConfig,
    Worker,
    WorkerConfig,
    WorkflowReplayResult,
    WorkflowRunner,
)

from sandbox_core.config import load_configuration
from sandbox_core.errors import ProviderError
from sandbox_core.providers.registry import Provider
from sandbox_core.reap_workflow import ReapWorkflow, VersionedReapWorkflow
from sandbox_core.storage.location import choose_location
from sandbox_core.storage.setup import Storage
from sandbox_core.wire.operations import PING, operations
from sandbox_core.worker.access import Authorize
from sandbox_core.worker.activities import Activity
from sandbox_core.worker.agents_patches import (
    apply_manifests_in_linear_time,
    read_custom_tool_outputs_as_text,
    remember_resolved_environments,
)
from sandbox_core.worker.commands.binaries import helper_turned_off
from sandbox_core.worker.failure_interceptor import FailuresInterceptor
from sandbox_core.worker.heartbeats import LONGEST_S
from sandbox_core.worker.metrics import ProviderMetrics, meter_of
from sandbox_core.worker.offer import Offer
from sandbox_core.worker.own_queue import own_queue
from sandbox_core.worker.runtime import ProviderRuntime
from sandbox_core.worker.secrets import (
    AllowAllWorkerEnvVars,
    allowed_names,
    keep_secrets_out_of_logs,
)
from sandbox_core.worker.sessions.labels import Namespace
from sandbox_core.worker.settings import (
    allowed_folders,
    check_bytes,
    check_flag,
    check_function,
    check_mapping,
    check_storage,
    own_providers,
)
from sandbox_core.worker.siblings import share_slots, siblings
from sandbox_core.worker.workflow_runner import ContextSavingRunner, adapted_runner

logger = logging.getLogger(__name__)

# The activities of all plugins' workers, so that a second plugin notices the first.
_REGISTERED: weakref.WeakSet[Activity] = weakref.WeakSet()


class SandboxPlugin(temporalio.client.Plugin, temporalio.worker.Plugin):
    """Runs sandboxes for workflows: discovers installed providers and registers their activities.

    Pass it to the client, for all of its workers, or to a single worker::

        client = await Client.connect(address, plugins=[OpenAIAgentsPlugin(), SandboxPlugin()])
        worker = Worker(client, task_queue="agents", workflows=[RepairWorkflow])

    The order of plugins does not matter, and any data converter works: the client's gets external
    storage for large payloads, unless it already has one. Workers that only run workflows need the
    plugin too, with ``register_activities=False``.

    Each worker uses the providers that are installed when it is created. ``SANDBOX_CORE_PROVIDERS``
    is an exclusive list of required providers, and ``SANDBOX_CORE_DISABLED_PROVIDERS`` disables
    some.

    An argument that is not passed, or None, comes from its environment variable, such as
    ``SANDBOX_CORE_MAX_FILE_BYTES``, otherwise from `sandbox.toml`, otherwise it has its default.
    Both are read when the plugin is created.

    Args:
        providers: The application's own providers, in addition to the installed ones.
        register_activities: Whether workers run sandbox operations, which is the default, or only
            workflows.
        storage: Where to keep large payloads and workspace snapshots: ``s3://bucket/prefix``,
            ``gs://``, ``az://`` or a directory; the same for every client and worker. Defaults to a
            directory on this host.
        storage_patience: How long to wait for unreachable storage before the workflows that need it
            fail; by default five minutes.
        storage_threshold: The size in bytes from which activity inputs and results are stored
            externally. Defaults to 128 KiB, or to about 1 MB if no storage is configured. A
            workflow's own input, result, signals and updates are stored only if Temporal might
            refuse them, so that clients without the plugin can read them.
        max_file_bytes: The maximum size of a file, archive, workspace, request or response; by
            default 1 GiB.
        max_output_bytes: The maximum size of a command's stdout, and of its stderr; by default
            1 MiB. Longer output keeps its head and tail, with a note of how much was dropped.
        local_sources: Directories of this host from which manifests may copy files.
        worker_env: The environment variables of this worker that `WorkerEnv` may read;
            `AllowAllWorkerEnvVars` allows all of them, including the worker's own credentials.
        max_sandboxes: The maximum number of sandboxes per worker, by provider name. Further creates
            wait until one is deleted.
        authorize: Decides whether a workflow, or a standalone activity, may use a sandbox that
            another workflow owns; see `SandboxAccess`. Anything but True refuses it with
            `AccessDenied`. By default all may. Cannot be combined with `peer_clients`.
        peer_clients: For workflows started with the OpenAI plugin's own sandboxes: maps the name
            passed to its `temporal_sandbox_client` to the provider that runs their operations from
            now on, such as ``{"local": "local"}``.

    Raises:
        ConfigError: `sandbox.toml` or a variable has a wrong or unknown setting.
        StorageError: `storage` is not a storage URL, or contains credentials.
        TypeError: An argument has another type, such as a single name or directory instead of a
            collection.
        ValueError: A limit is less than 1, `storage_threshold` is out of range, or `authorize` is
            combined with `peer_clients`.
    """

    def __init__(
        self,
        *,
        providers: Iterable[Provider] = (),
        register_activities: bool | None = None,
        storage: str | None = None,
        storage_patience: timedelta | None = None,
        storage_threshold: int | None = None,
        max_file_bytes: int | None = None,
        max_output_bytes: int | None = None,
        local_sources: Iterable[str | Path] | None = None,
        worker_env: Iterable[str] | AllowAllWorkerEnvVars | None = None,
        max_sandboxes: Mapping[str, int] | None = None,
        peer_clients: Mapping[str, str] | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        configuration = load_configuration()
        settings = configuration.settings.overridden(
            register_activities=register_activities,
            storage_patience=storage_patience,
            storage_threshold=storage_threshold,
            max_file_bytes=max_file_bytes,
            max_output_bytes=max_output_bytes,
            max_sandboxes=max_sandboxes,
            peer_clients=peer_clients,
        )
        check_storage(storage, settings.storage_patience, settings.storage_threshold)
        check_flag("register_activities", settings.register_activities)
        check_bytes("max_file_bytes", settings.max_file_bytes)
        check_bytes("max_output_bytes", settings.max_output_bytes)
        check_mapping("max_sandboxes", settings.max_sandboxes, int)
        check_mapping("peer_clients", settings.peer_clients, str)
        check_function("authorize", authorize)
        location = choose_location(storage, configuration)
        self._storage = Storage(
            location,
            patience=settings.storage_patience,
            threshold=settings.storage_threshold,
            max_file_bytes=settings.max_file_bytes,
            max_output_bytes=settings.max_output_bytes,
        )
        self._offer = Offer(
            configuration=configuration,
            providers=own_providers(providers),
            local_sources=allowed_folders(
                settings.local_sources if local_sources is None else local_sources
            ),
            worker_env=allowed_names(settings.worker_env if worker_env is None else worker_env),
            max_sandboxes=dict(settings.max_sandboxes),
            peer_clients=dict(settings.peer_clients),
            snapshots=self._storage.snapshots,
            authorize=authorize,
            fleet=self._storage.is_configured,
        )
        self._register_activities = settings.register_activities
        # What decides whether two plugins are the same.
        self._settings = (
            self._offer,
            settings.register_activities,
            location,
            settings.storage_patience,
            settings.storage_threshold,
            settings.max_file_bytes,
            settings.max_output_bytes,
        )
        # Worker.__init__ calls configure_worker, Worker.run calls run_worker; the activities
        # connect the two.
        self._runtimes: dict[Activity, ProviderRuntime] = {}
        self._pings: set[Activity] = set()

    @property
    def provider_names(self) -> list[str]:
        """The usable providers of all workers created so far, sorted."""
        return sorted({runtime.name for runtime in self._runtimes.values() if runtime.is_usable})

    def name(self) -> str:
        """Return the plugin's name, as Temporal shows it."""
        return "sandbox-core"

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """Add external storage for large payloads, unless the client already has one."""
        config["data_converter"] = self._storage.add_to(config["data_converter"])
        return config

    async def connect_service_client(
        self,
        config: ConnectConfig,
        next: Callable[[ConnectConfig], Awaitable[ServiceClient]],  # noqa: A002 - Temporal's name
    ) -> ServiceClient:
        """Connect as usual."""
        return await next(config)

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Discover and load the providers, and add their activities.

        Raises:
            ProviderError: A provider required by ``SANDBOX_CORE_PROVIDERS`` cannot be used, or
                `max_sandboxes` or `peer_clients` names an unknown one.
            StorageError: The configured storage is a directory that cannot be used.
            ValueError: The worker has another `SandboxPlugin` with different settings.
        """
        activities = list(config.get("activities") or ())
        if any(fn in _REGISTERED for fn in activities):
            return config  # Already done, by the client's plugin.
        self._refuse_others(config)
        self._storage.check()
        runtimes = self._offer.load()
        if self._register_activities:
            for runtime in runtimes:
                for row, fn in zip(operations(), runtime.activities(), strict=True):
                    self._runtimes[fn] = runtime
                    _REGISTERED.add(fn)
                    if row is PING:
                        self._pings.add(fn)
                    activities.append(fn)
            activities += self._peer_activities(runtimes)
            share_slots(config)
        config["activities"] = activities
        # With a heartbeat timeout of 30 s, Temporal's SDK would throttle heartbeats to one in 24 s,
        # and heartbeats are how an activity learns of its cancellation.
        throttle = config.get("max_heartbeat_throttle_interval")
        longest = timedelta(seconds=LONGEST_S)
        config["max_heartbeat_throttle_interval"] = min(throttle or longest, longest)
        read_custom_tool_outputs_as_text()
        apply_manifests_in_linear_time()
        remember_resolved_environments()
        deployment = config.get("deployment_config")
        config["workflows"] = _with_maintenance(
            config.get("workflows") or (),
            versioned=deployment is not None and deployment.use_worker_versioning,
        )
        config["client"] = self._storage.client_with(config["client"])
        config["interceptors"] = [
            *config.get("interceptors", ()),
            self._storage.interceptor(config["client"].data_converter),
            FailuresInterceptor(),
        ]
        config["workflow_runner"] = _runner(config["workflow_runner"], runtimes)
        return config

    async def run_worker(
        self,
        worker: Worker,
        next: Callable[[Worker], Awaitable[None]],  # noqa: A002 - Temporal's name
    ) -> None:
        """Create the providers' clients, run the worker, and close the clients.

        Raises:
            ProviderLoad: The client of a required provider cannot be created.
        """
        self._storage.warn_if_default(worker)
        self._storage.record_to(meter_of(worker))
        config = worker.config(active_config=True)
        runner = config.get("workflow_runner")
        if isinstance(runner, ContextSavingRunner):
            runner.contexts.are_for(worker.client.data_converter)
        configured = config.get("activities", ())
        activities = [fn for fn in configured if fn in self._runtimes]
        mine = dict.fromkeys(self._runtimes[fn] for fn in activities)
        if not mine:
            await next(worker)
            return
        keep_secrets_out_of_logs()
        if isinstance(self._offer.worker_env, AllowAllWorkerEnvVars):
            logger.warning(
                "SandboxPlugin(worker_env=AllowAllWorkerEnvVars()) lets workflows of task queue "
                "%s, and the commands that models run in their sandboxes, read EVERY variable of "
                "this worker's environment, including its credentials. Name the variables instead: "
                "worker_env=[...].",
                worker.task_queue,
            )
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(helper_turned_off(self._offer.helper_off))
            queue = stack.enter_context(own_queue(worker.client.namespace, worker.task_queue))
            namespace = await _namespace(worker)
            try:
                for runtime in mine:
                    metrics = ProviderMetrics.of_worker(worker, runtime.name)
                    await stack.enter_async_context(runtime.active(queue, namespace, metrics))
            except ProviderError:
                # `async with worker` waits for a shutdown, which only a running worker can reach.
                stopping = asyncio.create_task(worker.shutdown())
                await next(worker)
                await stopping
                raise
            pings = [fn for fn in activities if fn in self._pings]
            await stack.enter_async_context(siblings(worker, queue, activities, pings))
            await next(worker)

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Load the providers' models and add external storage, as for a running workflow."""
        runtimes = self._offer.load()
        config["workflows"] = _with_maintenance(config.get("workflows") or ())
        config["data_converter"] = self._storage.add_to(
            config.get("data_converter") or DataConverter.default
        )
        config["interceptors"] = [
            *config.get("interceptors", ()),
            self._storage.interceptor(config["data_converter"]),
            FailuresInterceptor(),
        ]
        config["workflow_runner"] = _runner(config["workflow_runner"], runtimes)
        return config

    def run_replayer(
        self,
        replayer: Replayer,
        histories: AsyncIterator[WorkflowHistory],
        next: Callable[  # noqa: A002 - Temporal's name
            [Replayer, AsyncIterator[WorkflowHistory]],
            AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]],
        ],
    ) -> AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]]:
        """Replay as usual."""
        return next(replayer, histories)

    def _refuse_others(self, config: WorkerConfig) -> None:
        """Raise a `ValueError` if another plugin of the worker has different settings."""
        for other in (*config["client"].config()["plugins"], *config.get("plugins", ())):
            if isinstance(other, SandboxPlugin) and other._settings != self._settings:
                raise ValueError(
                    "this worker's SandboxPlugin has other settings than its client's: pass "
                    "SandboxPlugin(...) to the client or to the worker, not to both"
                )

    def _peer_activities(self, runtimes: Iterable[ProviderRuntime]) -> Iterable[Activity]:
        by_name = {runtime.name: runtime for runtime in runtimes}
        for called, name in self._offer.peer_clients.items():
            for fn in by_name[name].peer_activities(called):
                self._runtimes[fn] = by_name[name]
                _REGISTERED.add(fn)
                yield fn


async def _namespace(worker: Worker) -> Namespace | None:
    try:
        return await Namespace.of(worker.client)
    except RPCError as error:
        logger.warning(
            "the Temporal server does not describe namespace %s (%s): this worker's sandboxes get "
            "no labels, so the sandbox of a killed create is not found again",
            worker.client.namespace,
            error,
        )
        return None


def _runner(runner: WorkflowRunner, runtimes: Iterable[ProviderRuntime]) -> WorkflowRunner:
    modules = {module for runtime in runtimes for module in runtime.model_modules()}
    return adapted_runner(runner, model_modules=modules)


def _with_maintenance(workflows: Sequence[type], *, versioned: bool = False) -> Sequence[type]:
    # A worker without workflows must not start polling for them: it would receive the queue's.
    if not workflows or any(issubclass(each, ReapWorkflow) for each in workflows):
        return workflows
    return [*workflows, VersionedReapWorkflow if versioned else ReapWorkflow]
