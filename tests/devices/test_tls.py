"""A terminal with a certificate of its own against a real mosquitto with TLS: its name is its certificate's."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devices.agent_config import TlsOptions
from devices.credentials import CredentialStore, enrol
from devices.terminal import TerminalAgent
from devices.topics import Up, prefix
from runtime.broker_mosquitto import find_program
from runtime.ports import free_port
from tests.devices.files import serving
from tests.devices.support import fresh, until

pytestmark = pytest.mark.skipif(find_program() is None, reason="needs mosquitto")
CONFIG = """\
listener {port} 127.0.0.1
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
require_certificate true
use_identity_as_username true
allow_anonymous false
user root
"""


class Authority:
    """Signs the broker's certificate and what terminals ask for."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.pem = self._pem(self._builder(self.name, self.key.public_key()).add_extension(constraints, True))

    def _builder(self, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def _pem(self, builder: x509.CertificateBuilder) -> str:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def server(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        (folder / "server.pem").write_text(
            self._pem(self._builder(subject, key.public_key()).add_extension(names, False))
        )
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "ca.pem").write_text(self.pem)

    def sign(self, csr: str, name: str) -> str:
        """The authority decides the name; what the request claims does not count."""
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._pem(self._builder(subject, request.public_key()))


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Authority, int]]:
    authority, port = Authority(), free_port()
    authority.server(tmp_path)
    (tmp_path / "mosquitto.conf").write_text(CONFIG.format(port=port, folder=tmp_path))
    program = find_program()
    assert program is not None
    with (tmp_path / "log").open("wb") as log:
        broker = subprocess.Popen([program, "-c", str(tmp_path / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        yield authority, port
    finally:
        broker.terminate()
        broker.wait(30)


async def test_a_certificate_of_its_own_and_a_broker_that_is_checked(
    secure: tuple[Authority, int], tmp_path: Path
) -> None:
    authority, port = secure
    terminal = fresh()

    def answer(body: Any) -> tuple[int, Any]:
        return 200, {
            "terminal": terminal.terminal,
            "region": terminal.region,
            "store": terminal.store,
            "profile": terminal.profile,
            "topic_prefix": prefix(terminal.region, terminal.store, terminal.terminal),
            "broker": {"host": "127.0.0.1", "port": port, "tls": True, "ca": authority.pem},
            "certificate": authority.sign(body["csr"], terminal.terminal),
        }

    store = CredentialStore(tmp_path / "home")
    with serving() as gateway:
        gateway.posts["/terminals/enrol"] = answer
        async with httpx.AsyncClient(timeout=30.0) as http:
            store.save(await enrol("1234", gateway.url, http, certificate=True))
    credential = store.load()
    assert credential is not None
    config = store.config(credential, reconnect_s_min=0.02, reconnect_s_max=0.2)
    agent = TerminalAgent(config)
    await agent.start(connect_timeout_s=30.0)
    # Larger than one TLS record: a frame's worth of bytes goes out whole.
    await agent.publish(Up.TELEMETRY, b"x" * 150_000, qos=1)
    await agent.stop()

    # Without the certificate, or with an authority that the broker's is not of, there is no connection.
    assert config.tls is not None
    for tls in (
        replace(config.tls, certificate=None, key=None),
        TlsOptions(None, config.tls.certificate, config.tls.key),
    ):
        stranger = TerminalAgent(replace(config, tls=tls))
        await stranger.start()
        counts = stranger.link.counts
        await until(lambda counts=counts: counts.connect_failures > 0)  # type: ignore[misc]
        assert not stranger.online
        await stranger.stop()
