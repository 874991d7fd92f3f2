"""The databases and brokers of all regions: what is embedded runs once and is shared, what has a URL is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
import structlog

from models.domain.errors import NeedsOperator
from models.domain.ids import RegionId
from models.tables.deployment import identity, mark_ours, require_ours
from models.tables.migrate import upgrade
from runtime.broker import BrokerInfo, BrokerServer, ExternalBroker, TerminalDoor, open_broker
from runtime.datadir import DataDir
from runtime.deployment import Place
from runtime.postgres import EmbeddedPostgres, check_url
from runtime.settings import Broker as BrokerSettings

log = structlog.get_logger()


class Databases:
    """Each distinct database once: the embedded server, and those of URLs."""

    def __init__(self, data: DataDir, places: Sequence[Place], deployment: str) -> None:
        """`deployment` is the name that this deployment leaves in each."""
        self._places = places
        self._deployment = deployment
        wanted = any(place.database_url is None for place in places)
        self.embedded = EmbeddedPostgres(data) if wanted else None
        self.urls: dict[RegionId, str] = {}

    @property
    def distinct(self) -> list[str]:
        """One URL for each database."""
        return list(dict.fromkeys(self.urls.values()))

    def start(self) -> dict[RegionId, str]:
        """Every region's URL, its schema at the head. Raises NeedsOperator, `foreign_database` among others.

        Nothing is migrated before all of them are known to be ours.
        """
        embedded = self.embedded.start() if self.embedded is not None else ""
        known: dict[str, str] = {}
        found: dict[str, str] = {}
        for place in self._places:
            url = place.database_url or embedded
            if url not in found:
                found[url] = known.setdefault(self._examine(url, place), url)
            self.urls[place.name] = found[url]
        for url in self.distinct:
            upgrade(url)
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
                mark_ours(conn, self._deployment)
        return self.urls

    def _examine(self, url: str, place: Place) -> str:
        if place.database_url is not None:
            with _of_region(place):
                check_url(url)
        with _of_region(place), psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
            require_ours(conn, self._deployment)
            return identity(conn)

    @property
    def detail(self) -> str:
        """For the screen."""
        words = []
        if self.embedded is not None:
            words.append("adopted" if self.embedded.adopted else "PostgreSQL")
        others = len(self.distinct) - len(words)
        return " + ".join([*words, *([f"{others} by URL"] if others else [])])


@contextmanager
def _of_region(place: Place) -> Iterator[None]:
    """Says in which region's settings an error has its cause."""
    try:
        yield
    except NeedsOperator as error:
        raise NeedsOperator(error.code, f"region {place.name}: {error.message}", error.do) from error


class Brokers:
    """Each distinct broker once: the embedded one, and those of URLs."""

    def __init__(self, data: DataDir, settings: BrokerSettings, places: Sequence[Place]) -> None:
        self._places = places
        self._servers: dict[str | None, BrokerServer] = {
            url: ExternalBroker(url, settings.ca, settings.certificates_port if settings.ca else 0)
            if url is not None
            else open_broker(data, settings)
            for url in dict.fromkeys(place.broker_url for place in places)
        }

    @property
    def embedded(self) -> BrokerServer | None:
        """The one that we start, watch and stop."""
        return self._servers.get(None)

    def start(self, users: Mapping[str, str]) -> None:
        """All of them; `users` (name -> secret) are let into the embedded one.

        A region's broker that is away does not keep the others from starting: its hosts connect as soon as it is there.
        """
        for place in self._places:
            server = self._servers[place.broker_url]
            if server is self.embedded:
                server.add_users(users)
            try:
                with _of_region(place):
                    server.start()
            except NeedsOperator as error:
                if len(self._servers) == 1 or error.code != "broker_unreachable":
                    raise
                log.warning("broker_away", region=place.name, error=error.message)

    def info(self, region: RegionId) -> BrokerInfo:
        """How a region's hosts and terminals reach theirs."""
        [place] = [place for place in self._places if place.name == region]
        return self._servers[place.broker_url].info

    def door(self, region: RegionId) -> TerminalDoor:
        """Where a region's terminals come in."""
        [place] = [place for place in self._places if place.name == region]
        return self._servers[place.broker_url].door

    @property
    def detail(self) -> str:
        """For the screen."""
        infos = [server.info for server in self._servers.values()]
        return ", ".join(f"{info.kind} {info.host}:{info.port}" for info in infos)
