"""A terminal's credential: enrolled with a one-time code, kept 0600 in its folder, rotated on command.

The contract of the gateway's side is in docs/terminal-protocol.md, Enrolment.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Meta, Struct

from devices.agent_config import AgentConfig, TlsOptions
from devices.durable import write_whole
from models.domain.errors import NeedsOperator, Refused, RetryLater
from models.domain.ids import RegionId, StoreId, TerminalId, shard_of

ANSWER_BYTES_MAX = 64 * 1024
Level = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,48}$(?!\n)")]
Pem = Annotated[str, Meta(max_length=32 * 1024)]


class BrokerPlace(Struct, frozen=True):
    """Where the broker is. `ca`: PEM of the authority that signed its certificate; null: the system's count."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    tls: bool = False
    ca: Pem | None = None


class Enrolled(Struct, frozen=True):
    """The gateway's answer to an enrolment or a rotation: a secret, or a certificate for the key behind our CSR."""

    terminal: Level
    region: Level
    store: Level
    profile: Annotated[str, Meta(min_length=1, max_length=64)]
    topic_prefix: str
    broker: BrokerPlace
    secret: Annotated[str, Meta(min_length=16, max_length=256)] | None = None
    certificate: Pem | None = None


_DECODER = msgspec.json.Decoder(Enrolled)


@dataclass(frozen=True, slots=True)
class Credential:
    """An answer, and the private key that we made for its certificate."""

    enrolled: Enrolled
    key_pem: str | None = None


class CredentialStore:
    """`credential.json` in the terminal's folder, and beside it the one that a rotation is trying. Blocking."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> Credential | None:
        """The credential in force; None before enrolment. Raises NeedsOperator `credential_broken`."""
        path = self.folder / "credential.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Credential)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NeedsOperator("credential_broken", f"{path}: {error}", "enrol again with a new code") from error

    def save(self, credential: Credential) -> None:
        """In force from now on: the old one or the new one is there, whatever happens."""
        self._write_pems(credential)
        write_whole(self.folder / "credential.json", msgspec.json.encode(credential))

    def config(self, credential: Credential, **changes: Any) -> AgentConfig:
        """How an agent connects with it."""
        one = credential.enrolled
        tls = None
        if one.broker.tls:
            self._write_pems(credential)
            ca, certificate, key = self._pem_paths(credential)
            tls = TlsOptions(ca, certificate, key)
        return AgentConfig(
            host=one.broker.host,
            port=one.broker.port,
            region=RegionId(one.region),
            store=StoreId(one.store),
            terminal=TerminalId(one.terminal),
            profile=one.profile,
            secret=one.secret,
            tls=tls,
            **{"folder": self.folder, "outbox_path": self.folder / "outbox.sqlite", **changes},
        )

    def _pem_paths(self, credential: Credential) -> tuple[Path | None, Path | None, Path | None]:
        """One set of files for each certificate, so that a rotation does not touch those in use."""
        one = credential.enrolled
        mark = hex(hash_text((one.certificate or "") + (one.broker.ca or "")))[2:]
        ca = self.folder / f"ca-{mark}.pem" if one.broker.ca is not None else None
        if one.certificate is None or credential.key_pem is None:
            return ca, None, None
        return ca, self.folder / f"certificate-{mark}.pem", self.folder / f"key-{mark}.pem"

    def _write_pems(self, credential: Credential) -> None:
        contents = (credential.enrolled.broker.ca, credential.enrolled.certificate, credential.key_pem)
        for path, content in zip(self._pem_paths(credential), contents, strict=True):
            if path is not None and content is not None and not path.exists():
                write_whole(path, content.encode())


def hash_text(text: str) -> int:
    """A short name for a content."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(text.encode())
    return int.from_bytes(digest.finalize()[:8])


def make_csr(common_name: str) -> tuple[str, str]:
    """A fresh P-256 key and a request for a certificate with it: (key PEM, CSR PEM). The key never leaves."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem.decode(), request.public_bytes(serialization.Encoding.PEM).decode()


async def enrol(code: str, gateway: str, http: httpx.AsyncClient, *, certificate: bool = False) -> Credential:
    """Trade a one-time code for a credential: `POST {gateway}/terminals/enrol {code, csr?}`.

    Raises Refused (the code is unknown, used or too old), RetryLater (no answer: the code may be used again for ten
    minutes by the same device), NeedsOperator (an answer that is none).
    """
    return await _post(f"{gateway.rstrip('/')}/terminals/enrol", {"code": code}, http, certificate)


async def rotate(url: str, code: str, http: httpx.AsyncClient, present: Credential) -> Credential:
    """Fetch the next credential under the command's code; of the kind that the present one is."""
    wants_certificate = present.enrolled.certificate is not None
    body = {"code": code, "terminal": present.enrolled.terminal}
    fresh = await _post(url, body, http, wants_certificate)
    ours, theirs = present.enrolled, fresh.enrolled
    if (ours.terminal, ours.store, ours.region) != (theirs.terminal, theirs.store, theirs.region):
        raise Refused("foreign_credential", f"that credential is {theirs.terminal}'s", "rotate again")
    return fresh


async def _post(url: str, body: dict[str, str], http: httpx.AsyncClient, certificate: bool) -> Credential:
    key_pem = None
    if certificate:
        key_pem, body["csr"] = await asyncio.to_thread(make_csr, body.get("terminal", "terminal"))
    try:
        answer = await http.post(url, json=body)
    except httpx.HTTPError as error:
        raise RetryLater("gateway_unreachable", f"{url}: {error}", "check --gateway and the network") from error
    if answer.status_code >= 500:
        raise RetryLater("gateway_unreachable", f"{url}: HTTP {answer.status_code}", "try again in a minute")
    if answer.status_code != httpx.codes.OK:
        raise _refusal(answer)
    if len(answer.content) > ANSWER_BYTES_MAX:
        raise NeedsOperator("enrolment_answer", f"{len(answer.content)} bytes", "is --gateway a storeops gateway?")
    try:
        enrolled = _DECODER.decode(answer.content)
    except ValueError as error:
        raise NeedsOperator("enrolment_answer", str(error)[:200], "is --gateway a storeops gateway?") from error
    shard = f"{shard_of(StoreId(enrolled.store)):02x}"
    if enrolled.topic_prefix != f"so/1/{enrolled.region}/{shard}/{enrolled.store}/{enrolled.terminal}":
        raise NeedsOperator("enrolment_answer", f"topic prefix {enrolled.topic_prefix[:80]!a}", "ask the operator")
    if (enrolled.secret is None) == (enrolled.certificate is None) or (enrolled.certificate and key_pem is None):
        raise NeedsOperator("enrolment_answer", "neither a secret nor our certificate", "ask the operator")
    return Credential(enrolled, key_pem)


def _refusal(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
        return Refused(
            str(problem["code"])[:64], str(problem.get("detail", ""))[:300], str(problem.get("do", ""))[:300]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused("enrolment_refused", f"HTTP {answer.status_code}", "ask for a new code")
