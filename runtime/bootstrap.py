"""Starts the parts of the house in order, watches them, and stops them within two seconds.

The gateway listens first. Database, broker, provider and Ray come up side by side; then the registry, the actors.
Whatever dies is started again: Ray does it for actors, `watch` for processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from gateway.settings import GatewaySettings, ServedRegion
from gateway.startup import Part, PartState, Startup, write_startup
from models.domain.errors import NeedsOperator
from models.domain.ids import RegionId
from runtime import origin
from runtime.chains import terminals_of
from runtime.datadir import PLANT_FILE, DataDir, default_data_dir, open_data_dir, ray_token_path, write_private
from runtime.deployment import Place, places_of
from runtime.edge import gateway_argv, provider_argv
from runtime.ports import LOOPBACK, accepts, listens, preferred_or_free
from runtime.processes import ChildProcess, ProcessSpec, kill_all, raise_file_limit
from runtime.progress import Progress
from runtime.settings import Settings

if TYPE_CHECKING:  # what the gateway need not wait for is imported while it starts: see _import_the_rest
    from runtime.broker import BrokerServer
    from runtime.plant import Plant
    from runtime.postgres import EmbeddedPostgres
    from runtime.servers import Brokers, Databases

log = structlog.get_logger()

STARTUP_FILE = "startup.json"
PARTS = ("console", "database", "broker", "provider", "ray")
PARTS_OF_A_REGION = ("faces", "hosts", "settlement")
ACTOR_READY_S_MAX = 60.0
CHILD_READY_S_MAX = 20.0
WATCH_EVERY_S = 0.25
HOSTS_EVERY_LOOKS = 20
HOST_STOP_S_MAX = 0.5
RAY_STARTS_MAX = 2
PROVIDER_PORT = 18_840
DEMO_KEY = "demo-terminals"
THE_REST = (
    "runtime.faces",
    "runtime.furnish",
    "runtime.plant",
    "runtime.servers",
)
"""Modules that take seconds to import, used inside methods only."""


class House:
    """One running deployment on one data folder."""

    def __init__(self, settings: Settings, *, demo: bool, chain_file: Path | None, progress: Progress) -> None:
        self.settings = settings
        self.demo = demo
        self.places: tuple[Place, ...] = places_of(settings, chain_file)
        self._progress = progress
        self._stack = ExitStack()
        names = [*PARTS, *(self._named(part, place.name) for place in self.places for part in PARTS_OF_A_REGION)]
        self._parts: dict[str, Part] = {name: Part(name, PartState.WAITING) for name in names}
        self._parts_lock = threading.Lock()
        self._links: dict[str, str] = {}
        self._children: dict[str, ChildProcess] = {}
        self._stopping = threading.Event()
        self._databases: Databases | None = None
        self._brokers: Brokers | None = None
        self._ray_temp: Path | None = None
        self._hosts: list[Any] = []
        self._actors: list[Any] = []
        self.plants: tuple[Plant, ...] = ()
        self.began = time.monotonic()
        self.console_s: float | None = None
        self.ready_s: float | None = None

    # ------------------------------------------------------------ up

    def _named(self, part: str, region: str) -> str:
        """A region's part, on the screen and on the start-up page."""
        return part if len(self.places) == 1 else f"{part}/{region}"

    def start(self) -> tuple[Plant, ...]:
        """Everything, in order; every region's plant.

        Raises NeedsOperator naming the part that did not come up; then nothing is left.
        """
        origin.check()
        raise_file_limit()
        self.data: DataDir = open_data_dir(self.settings.data_dir or default_data_dir())
        self._stack.enter_context(self.data.held())
        (self.data.secrets / PLANT_FILE).unlink(missing_ok=True)
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _require_safe_address(self) -> None:
        """Sign-in cookies and consents must not travel in clear beyond this machine."""
        host, public = self.settings.gateway.host, self.settings.gateway.public_url or ""
        if host not in {"127.0.0.1", "localhost", "::1"} and not public.startswith("https://"):
            raise NeedsOperator(
                "gateway_exposed",
                f"the console would be served in clear on {host}",
                "put a TLS proxy in front and set gateway.public_url to its https:// address, or keep 127.0.0.1",
            )

    def _start(self) -> tuple[Plant, ...]:
        self._require_safe_address()
        self._set_ray_environment()
        self._gateway_port = preferred_or_free(self.settings.gateway.port, self.settings.gateway.host)
        self._provider_port = preferred_or_free(PROVIDER_PORT)
        self._provider_url = self.settings.provider.url or f"http://127.0.0.1:{self._provider_port}"
        with ThreadPoolExecutor(max_workers=4) as pool:
            console = pool.submit(self._start_console)
            # In this thread alone: two threads that import the same modules see half of them.
            for module in THE_REST:
                importlib.import_module(module)
            console.result()
            database = pool.submit(self._start_database)
            broker = pool.submit(self._start_broker)
            provider = pool.submit(self._start_provider)
            ray_address = self._start_ray()
            urls, provider_url = database.result(), provider.result()
            broker.result()
        from runtime.cluster import require_reachable
        from runtime.plant import write_plants

        require_reachable(self.places, simulator=self.settings.provider.kind == "simulator")

        self.plants = self._plants(urls, provider_url, ray_address)
        self._start_actors()
        write_plants(self.data.secrets, self.plants)
        self.ready_s = time.monotonic() - self.began
        return self.plants

    def _plants(self, urls: Mapping[RegionId, str], provider_url: str, ray_address: str) -> tuple[Plant, ...]:
        from runtime.furnish import furnish, plants_of
        from runtime.keyring import require_keyring
        from runtime.plant import Plant
        from runtime.privacy_desk import retention_of

        assert self._brokers is not None
        require_keyring(self.data.secrets, urls.values(), self._progress.say)
        told = {"provider_url": provider_url, "gateway_url": self.gateway_url, "key": self.data.secret(DEMO_KEY)}
        accounts = asyncio.run(furnish(self.data, self.places, urls, may_jump=self.settings.clock.may_jump, **told))
        everywhere = Plant(
            data_dir=self.data.root,
            provider_url=provider_url,
            provider_follows=self.settings.provider.kind == "simulator",
            provider_statements_daily=self.settings.provider.statements_daily,
            provider_fee_bps=self.settings.provider.fee_bps,
            provider_calls_per_s_max=self.settings.provider.calls_per_s_max,
            provider_calls_in_flight_max=self.settings.provider.calls_in_flight_max,
            faces_policy=self.settings.faces.policy,
            faces_recognisers=self.settings.faces.recognisers,
            faces_adaptive=self.settings.faces.adaptive,
            faces_workers_min=self.settings.faces.workers_min,
            faces_workers_max=self.settings.faces.workers_max,
            faces_idle_s=self.settings.faces.idle_s,
            faces_device=self.settings.faces.device,
            retention=retention_of(self.settings.privacy),
            member_link_hours=self.settings.privacy.link_hours,
            faces_cache=self.data.root / "faces",
            pepper=self.data.secret("pepper").encode(),
            ray_address=ray_address,
            ray_token_path=os.environ["RAY_AUTH_TOKEN_PATH"],
            gateway_port=self._gateway_port,
            gateway_url=self.gateway_url,
            demo=self.demo,
        )
        return plants_of(everywhere, self.places, urls, self._brokers, accounts)

    def _start_console(self) -> None:
        with self._part("console") as part:
            self._start_gateway()
            part.detail = f"http://{self.settings.gateway.host}:{self._gateway_port}"
        self.console_s = time.monotonic() - self.began

    @contextmanager
    def _part(self, name: str) -> Iterator[Any]:
        """Progress on the screen and on the start-up page."""
        began = time.monotonic()
        self._note(Part(name, PartState.STARTING))
        try:
            with self._progress.part(name) as part:
                yield part
        except BaseException as error:
            self._note(Part(name, PartState.FAILED, _ms(began), type(error).__name__))
            raise
        self._note(Part(name, PartState.READY, _ms(began), part.detail))

    def _note(self, part: Part) -> None:
        with self._parts_lock:
            self._parts[part.name] = part
            startup = Startup(tuple(self._parts.values()), dict(self._links), {"python": sys.version.split()[0]})
            write_startup(self.data.root / STARTUP_FILE, startup)

    def _set_ray_environment(self) -> None:
        """Token authentication stays on; the token is ours, in a 0600 file, or a cluster's, in the file it is in."""
        token = ray_token_path(self.settings.data_dir, self.settings.ray.address)
        if not token.exists():
            write_private(token, secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Ray starts its workers at nice 15: beside a busy broker and database a host would starve.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Inherited by the workers: BLAS threads would spin beside the net, a search then takes twice the time.
        os.environ.setdefault("OMP_NUM_THREADS", "1")

    # ------------------------------------------------------------ processes

    def _child(self, name: str, argv: tuple[str, ...], port: int, host: str = LOOPBACK) -> None:
        """Start it and wait until it is this process that answers on `port`."""
        child = ChildProcess(ProcessSpec(name, argv, self.data.logs / f"{name}.log", stop_timeout_s=1.5))
        pid = child.start()
        self._children[name] = child
        child.wait_ready(lambda: accepts(port, host) and listens(pid, port), CHILD_READY_S_MAX)

    def _start_gateway(self) -> None:
        host, port = self.settings.gateway.host, self._gateway_port
        values = GatewaySettings(
            host=host,
            port=port,
            public_url=self.settings.gateway.public_url or "",
            regions=tuple(ServedRegion(place.name, place.chain, place.slots) for place in self.places),
            demo=self.demo,
            provider_url=self._provider_url if self.settings.provider.kind == "simulator" else "",
        )
        self._child("gateway", gateway_argv(self.data.root, values), port, host)

    def _start_provider(self) -> str:
        with self._part("provider") as part:
            part.detail = self._provider_url
            if self.settings.provider.kind == "simulator":
                self._run_provider()
                self._links["provider_simulator"] = self._provider_url
        return self._provider_url

    def _run_provider(self) -> None:
        port = self._provider_port
        self._child("provider", provider_argv(self.data.root / "provider", port), port)

    def _start_database(self) -> Mapping[RegionId, str]:
        from runtime.servers import Databases

        with self._part("database") as part:
            deployment = hashlib.sha256(self.data.secret("deployment").encode()).hexdigest()[:12]
            self._databases = Databases(self.data, self.places, deployment)
            urls = self._databases.start()
            part.detail = self._databases.detail
        return urls

    def _start_broker(self) -> None:
        from runtime.servers import Brokers

        with self._part("broker") as part:
            self._brokers = Brokers(self.data, self.settings.broker, self.places)
            key = self.data.secret(DEMO_KEY)
            docs = [place.doc for place in self.places if place.doc is not None and self.demo]
            self._brokers.start({one.terminal: one.secret for doc in docs for one in terminals_of(doc, key)})
            part.detail = self._brokers.detail

    def _start_ray(self) -> str:
        with self._part("ray") as part:
            stale = self.data.root / "ray-folder"
            if stale.exists():
                shutil.rmtree(stale.read_text().strip(), ignore_errors=True)
            address = self.settings.ray.address
            options: dict[str, Any] = {}
            if address == "local":
                # Short: Unix sockets live inside, and their paths are bounded.
                self._ray_temp = Path(tempfile.mkdtemp(prefix="so-ray-"))
                stale.write_text(str(self._ray_temp))
                options = {
                    "include_dashboard": self.settings.ray.dashboard,
                    "dashboard_host": "127.0.0.1",
                    "object_store_memory": self.settings.ray.object_store_mib * 1024 * 1024,
                    "_temp_dir": str(self._ray_temp),
                }
            context = self._init_ray(address, options)
            dashboard = context.address_info.get("webui_url")
            if dashboard:
                self._links["ray_dashboard"] = f"http://{dashboard}"
            part.detail = f"http://{dashboard}" if dashboard else str(context.address_info["gcs_address"])
            return str(context.address_info["gcs_address"])

    @staticmethod
    def _init_ray(address: str, options: dict[str, Any]) -> Any:
        """Ray gives its own processes 30 s; a machine that is busy while everything starts gets a second try."""
        import ray

        for attempt in range(RAY_STARTS_MAX):
            try:
                return ray.init(
                    address=address, namespace="storeops", log_to_driver=False, configure_logging=False, **options
                )
            except Exception as error:
                ray.shutdown()
                if attempt + 1 == RAY_STARTS_MAX:
                    raise NeedsOperator(
                        "ray_not_started", str(error), "is the machine overloaded? see storeops doctor"
                    ) from error
                log.warning("ray_again", error=str(error))
        raise AssertionError("unreachable")

    # ------------------------------------------------------------ registry, accounts, actors

    def _start_actors(self) -> None:
        """All regions at once: each waits for its own processes."""
        from runtime import cluster, hosting
        from runtime.face_service import start_faces

        if self._ray_temp is None:
            cluster.end_left_behind(self.plants)
        self._actors += hosting.start_rollouts(self.plants)
        started = []
        for plant in self.plants:
            faces, settlement = start_faces(plant), hosting.start_settlement(plant)
            hosts = hosting.start_hosts(plant)
            self._actors += [*faces, settlement, *hosts]
            self._hosts += hosts
            started.append((plant.region, faces, settlement, hosts))
        for region, faces, settlement, hosts in started:
            with self._part(self._named("faces", region)):
                desk, *workers = faces
                hosting.started([desk.snapshot.remote(), *(one.health.remote() for one in workers)], ACTOR_READY_S_MAX)
            with self._part(self._named("hosts", region)):
                hosting.started([host.ready.remote() for host in hosts], ACTOR_READY_S_MAX)
            with self._part(self._named("settlement", region)):
                hosting.started([settlement.__ray_ready__.remote()], ACTOR_READY_S_MAX)

    # ------------------------------------------------------------ while it runs

    def watch(self) -> None:
        """Start again what died, until `stop`: gateway, provider, broker, database. Ray looks after actors."""
        looks = 0
        while not self._stopping.wait(WATCH_EVERY_S):
            self._revive()
            looks += 1
            if looks % HOSTS_EVERY_LOOKS == 0:
                self._start_missing_hosts()

    def _start_missing_hosts(self) -> None:
        """A planned change of hosts that was killed on its way is brought to its end."""
        from runtime import hosting

        for plant in self.plants:
            try:
                missing = hosting.start_missing_hosts(plant)
            except Exception as error:  # noqa: BLE001 - the database or the engine is away: the next look will see
                log.info("hosts_unknown", region=plant.region, error=type(error).__name__)
            else:
                for name in missing:
                    self._progress.say(f"! {name} was missing, starting it")

    def _revive(self) -> None:
        """What the others need first: database, broker, provider, gateway."""
        parts: list[tuple[str, Callable[[], bool], Callable[[], object]]] = []
        broker, postgres = self._embedded()
        if postgres is not None:
            parts.append(("database", lambda: postgres.pid is not None, postgres.start))
        if broker is not None:
            parts.append(("broker", lambda: broker.running, broker.start))
        for name, start in (("provider", self._run_provider), ("gateway", self._start_gateway)):
            child = self._children.get(name)
            if child is not None:
                parts.append((name, lambda child=child: child.running, start))  # type: ignore[misc]
        for name, runs, again in parts:
            if not self._stopping.is_set() and not runs():
                log.warning("restarting", part=name)
                self._progress.say(f"! {name} ended, starting it again")
                with contextlib.suppress(NeedsOperator):  # the next look tries again; the others do not wait for it
                    again()

    def _embedded(self) -> tuple[BrokerServer | None, EmbeddedPostgres | None]:
        """What we started, watch and stop; URLs are somebody else's."""
        broker = self._brokers.embedded if self._brokers is not None else None
        return broker, self._databases.embedded if self._databases is not None else None

    @property
    def gateway_url(self) -> str:
        """Where people find the console."""
        return self.settings.gateway.public_url or f"http://{self.settings.gateway.host}:{self._gateway_port}"

    # ------------------------------------------------------------ down

    def stop(self) -> None:
        """Everything, last started first, within two seconds; leaves no process. Safe to call twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        (self.data.secrets / PLANT_FILE).unlink(missing_ok=True)
        with ThreadPoolExecutor(max_workers=8) as pool:
            with self._progress.stopping("hosts"):
                self._stop_hosts()
            for name, child in self._children.items():
                pool.submit(self._stopped, name, lambda child=child: child.stop(0.8))  # type: ignore[misc]
            pool.submit(self._stopped, "ray", self._stop_ray)
            broker, postgres = self._embedded()
            if broker is not None:
                pool.submit(self._stopped, "broker", lambda: broker.stop(0.5))
            if postgres is not None:
                pool.submit(self._stopped, "database", postgres.stop)
        self._stack.close()

    def _stopped(self, name: str, stop: Callable[[], object]) -> None:
        with self._progress.stopping(name):
            try:
                stop()
            except Exception as error:  # noqa: BLE001 - the other parts are stopped all the same
                log.warning("stop_failed", part=name, error=str(error))

    def leave(self, code: int = 0) -> NoReturn:
        """Stop, and end this process at once: Ray's own exit handlers would wait for what is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.stop()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _stop_hosts(self) -> None:
        """Each finishes its batch; in a cluster that goes on without us, our actors end with us."""
        if not self._hosts:
            return
        import ray

        from runtime import hosting

        try:
            self._actors += hosting.stop_hosts([plant.region for plant in self.plants], HOST_STOP_S_MAX)
        except Exception as error:  # noqa: BLE001 - the batch that runs is in the database or comes again
            log.info("host_stop", error=type(error).__name__)
        if self._ray_temp is None:
            for actor in self._actors:
                ray.kill(actor)

    def _stop_ray(self) -> None:
        """Ray's own shutdown takes up to 5 s; its processes are our children and hold no truth: end them."""
        if self._ray_temp is None:
            return
        import psutil

        mine = psutil.Process().children(recursive=True)
        kept = {child.pid for child in self._children.values() if child.pid is not None}
        broker, postgres = self._embedded()
        servers = {broker.pid if broker is not None else None}
        if postgres is not None and postgres.pid is not None:
            family = psutil.Process(postgres.pid)
            servers |= {family.pid, *(one.pid for one in family.children(recursive=True))}
        kill_all([one for one in mine if one.pid not in kept | servers])
        shutil.rmtree(self._ray_temp, ignore_errors=True)


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def reset_data(root: Path) -> None:
    """Delete a data folder of ours. Raises NeedsOperator when something runs on it, or when it is not one.

    A folder counts as ours only by what a start leaves in it, so that a mistyped --data deletes nothing else.
    """
    from runtime.postgres import EmbeddedPostgres

    if not root.exists() or not any(root.iterdir()):
        return
    if not (root / "held.lock").is_file() or not (root / "secrets").is_dir():
        raise NeedsOperator(
            "not_a_data_folder", f"{root} was not made by storeops: it is not deleted", "name the right --data folder"
        )
    folder = open_data_dir(root)
    with folder.held():
        EmbeddedPostgres(folder).stop()
    shutil.rmtree(root)
