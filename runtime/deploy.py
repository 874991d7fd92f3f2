"""A mosquitto of your own, ready to run: configuration, access list, certificates, and everybody's hashed password."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from psycopg import AsyncConnection

from models.domain.errors import NeedsOperator
from models.tables import credentials as table
from runtime.authority import Authority
from runtime.broker import HOST_USER, user_hashes
from runtime.broker_mosquitto import BOUNDS, acl_text, password_line, tls_listeners
from runtime.datadir import open_data_dir, write_private
from runtime.plant import Plant


def deployed_config(folder: Path, port: int, certificates_port: int) -> str:
    """mosquitto.conf of a broker that terminals reach by TLS on every address of its machine."""
    head = "# storeops deploy mosquitto: write it again after each change of credentials, then send SIGHUP.\n"
    place = "persistence_location /var/lib/mosquitto/\nlog_dest syslog\n"
    listeners = tls_listeners(folder, "0.0.0.0", port, certificates_port)  # noqa: S104 - terminals are elsewhere
    return f"{head}{BOUNDS.format(folder=folder)}\n{place}{listeners}"


async def write_mosquitto(
    plants: Sequence[Plant], folder: Path, hosts: Sequence[str], port: int, certificates_port: int, installed_at: Path
) -> dict[str, str | int]:
    """Write the folder, 0700 with 0600 files. The hosts' password stays the same when it is written again.

    Raises NeedsOperator `folder_unwritable`.
    """
    data, now = open_data_dir(plants[0].data_dir, create=False), datetime.now(UTC)
    authority = Authority(data)
    present = user_hashes(data) if plants[0].broker_embedded else {}
    known: dict[str, str] = {}
    terminals: list[str] = []
    refused: list[str] = []
    serials: dict[str, datetime] = {}
    for url in dict.fromkeys(plant.database_url for plant in plants):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            known |= await table.broker_hashes(conn)
            refused += await table.refused_terminals(conn)
            serials |= await table.revoked_serials(conn, now)
            terminals += [row[0] for row in await (await conn.execute("SELECT id FROM terminal")).fetchall()]
    lines = {name: known.get(name) or present.get(name) for name in terminals if name not in refused}
    password = data.secret("broker-deployed")
    certificate, key = authority.issue_server(hosts, now)
    users = [password_line(HOST_USER, password), *(line for line in lines.values() if line is not None)]
    files = {
        "mosquitto.conf": deployed_config(installed_at, port, certificates_port),
        "acl": acl_text(HOST_USER, refused),
        "passwords": "".join(f"{line}\n" for line in users),
        "ca.pem": authority.certificate_pem,
        "crl.pem": authority.revocations(serials, now),
        "server.pem": certificate,
        "server-key.pem": key,
        "broker-url": f"mqtts://{HOST_USER}:{quote(password, safe='')}@{hosts[0]}:{port}\n",
    }
    _write(folder, files)
    return {
        "folder": str(folder),
        "passwords": sum(line is not None for line in lines.values()),
        "without": sum(line is None for line in lines.values()),
        "refused": len(refused),
        "next": f"copy it to {installed_at}, chown -R mosquitto there, mosquitto -c {installed_at}/mosquitto.conf;"
        " then here broker.url = the line in broker-url, broker.ca = ca.pem,"
        f" broker.certificates_port = {certificates_port}; keep broker-url off the broker's machine",
    }


def _write(folder: Path, files: Mapping[str, str]) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in files.items():
            if not name.startswith("server") or not (folder / name).exists():
                write_private(folder / name, text)  # a running broker's certificate stays until its file is removed
    except OSError as error:
        raise NeedsOperator("folder_unwritable", f"{folder}: {error.strerror}", "name another folder") from error
