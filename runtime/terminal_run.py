"""`storeops terminal run`: a registered terminal of a house on this machine, or an enrolled one of any house."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import httpx
from psycopg import AsyncConnection
from rich.console import Console

from devices.agent_config import AgentConfig
from devices.credentials import CredentialStore, enrol
from devices.interactive import run_terminal as play_terminal
from devices.liveness import LivenessKey
from models.domain.errors import NeedsOperator, Refused, RetryLater
from models.domain.ids import RegionId, StoreId, TerminalId
from runtime.chains import demo_secret
from runtime.datadir import default_data_dir, open_data_dir
from runtime.plant import Plant

HTTP_TIMEOUT_S = 30.0


def default_home() -> Path:
    """Where an enrolled terminal of this machine keeps its credential."""
    return default_data_dir().with_name("storeops-terminal")


async def registered(plant: Plant, terminal: str, secret: str | None) -> AgentConfig:
    """How a terminal of a house on this machine connects. A demonstration's terminal needs no secret.

    Raises Refused `unknown_terminal`, NeedsOperator `secret_missing`.
    """
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute(
            "SELECT store, coalesce(nullif(delivered_profile, ''), profile) FROM terminal WHERE id = %s", (terminal,)
        )
        row = await cursor.fetchone()
    if row is None:
        raise Refused("unknown_terminal", f"no terminal {terminal!r}", "register it: storeops terminal add")
    if secret is None and plant.demo:
        secret = demo_secret(open_data_dir(plant.data_dir, create=False).secret("demo-terminals"), terminal)
    if secret is None:
        raise NeedsOperator("secret_missing", "the terminal's secret", "--secret or STOREOPS_TERMINAL_SECRET")
    return AgentConfig(
        host=plant.broker_host,
        port=plant.broker_port,
        region=RegionId(plant.region),
        store=StoreId(row[0]),
        terminal=TerminalId(terminal),
        profile=row[1],
        secret=secret,
        outbox_path=plant.data_dir / f"terminal-{terminal}.sqlite",
        folder=folder_of(plant, terminal),
    )


def folder_of(plant: Plant, terminal: str) -> Path:
    """Where a registered terminal that is played beside its house keeps software and keys."""
    return plant.data_dir / "terminals" / terminal


async def enrolled(home: Path, code: str | None, gateway: str | None, *, certificate: bool) -> AgentConfig:
    """How an enrolled terminal connects; with a code it is enrolled first and its credential kept in `home`, 0600.

    Raises Refused (the gateway does not take the code, or `enrol_where`), RetryLater, NeedsOperator `not_enrolled`.
    """
    store = CredentialStore(home)
    if code is not None:
        if gateway is None:
            raise Refused("enrol_where", "which gateway gave the code?", "add --gateway https://…")
        async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S) as http:
            credential = await enrol(code, gateway, http, certificate=certificate)
        await asyncio.to_thread(store.save, credential)
        return store.config(credential)
    kept = await asyncio.to_thread(store.load)
    if kept is None:
        raise NeedsOperator("not_enrolled", f"no credential in {home}", "--enrol CODE --gateway URL, or --id TERMINAL")
    return store.config(kept)


async def play(
    config: AgentConfig,
    *,
    photos: Path | None,
    camera: str | None,
    language: str | None,
    provider_url: str | None = None,
    console: Console | None = None,
) -> None:
    """Play it until `quit` or Ctrl-C; a stuck program restarts itself. With a key in its folder it signs its scores.

    Raises RetryLater `broker_unreachable`, NeedsOperator `liveness_key`.
    """
    config = replace(config, liveness_key=await asyncio.to_thread(LivenessKey.load, config.folder))
    try:
        await play_terminal(
            config,
            photos,
            camera=camera,
            language=language,
            provider_url=provider_url,
            console=console,
            restart=restart_program,
        )
    except TimeoutError as error:
        where = f"{config.host}:{config.port}"
        raise RetryLater(
            "broker_unreachable", f"no connection to {where} within 10 s", "does it run, is the secret right?"
        ) from error


def restart_program(_: str) -> None:
    """The same program with the same options in this process; a one-time code is not used twice."""
    arguments = iter(sys.argv[1:])
    kept = []
    for argument in arguments:
        if argument == "--enrol":
            next(arguments, None)
        elif not argument.startswith("--enrol="):
            kept.append(argument)
    os.execv(sys.executable, [sys.executable, "-m", "runtime", *kept])  # noqa: S606 - this very program


def with_home(config: AgentConfig, home: Path | None) -> AgentConfig:
    """Another folder for outbox, software and credential."""
    return config if home is None else replace(config, folder=home, outbox_path=home / "outbox.sqlite")
