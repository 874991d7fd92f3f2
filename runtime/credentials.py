"""Who may connect as which terminal: one-time codes, secrets and certificates, their rotation and revocation.

A secret is never stored. It is HKDF-SHA256 (RFC 5869) of the one-time code under a pepper of this deployment that
lies outside the database, so the same code gives the same secret while its answer may be lost, and neither the
database nor the code alone gives it. Every change is a commit first; what the broker holds follows from the database
(`apply`), so whoever is killed on the way is brought to the end by the next look.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import AsyncConnection

from gateway.enrolment import Enrolment, EnrolRequest
from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import StoreId, shard_of
from models.tables import credentials as table
from models.tables.credentials import CURRENT, ENDED, NEXT, REVOKED, Code, Pending, Registered, Stored
from models.tables.liveness_keys import end_keys
from runtime import mqtt_probe
from runtime.authority import Authority, key_digest, request_key
from runtime.broker import let_in, set_access, user_hashes
from runtime.broker_mosquitto import password_line
from runtime.chains import secret_sha256
from runtime.datadir import DataDir, open_data_dir
from runtime.plant import Plant

log = structlog.get_logger()

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter that is taken for another."""
CODE_CHARACTERS = 12
"""60 bits: at a thousand guesses a second for the 15 minutes that it lasts, a chance of 1 in 10^12."""
MINUTES, MINUTES_MAX = 15, 24 * 60
REPEAT_WITHIN = timedelta(minutes=10)
ANSWERS_MAX = 20
LIVE_MAX = 4
"""Unconfirmed certificates beside the current one: they overlap until one is confirmed."""
ROTATION_CODE_LASTS = timedelta(minutes=2)
PENDING_LOOKED_AT_MAX = 1_000
LOOK_EVERY_S = 1.0
APPLIED_S_MAX = 3.0
FINAL_FAILURES = frozenset({"failed", "rejected"})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a rotation of a secret may stand without its `done`."""

    unseen: timedelta = timedelta(seconds=60)
    """The terminal has not been online under the secret in force for so long: the other one is tried."""
    settled: timedelta = timedelta(minutes=10)
    """It has been, for so long: that secret is the one it kept."""


class Credentials:
    """The server's half of docs/terminal-protocol.md, Enrolment and rotation; for all regions of a house."""

    def __init__(self, plants: Sequence[Plant], patience: Patience | None = None) -> None:
        self._plants = tuple(plants)
        self._patience = patience or Patience()
        self._data: DataDir = open_data_dir(plants[0].data_dir, create=False)
        self._authority = Authority(self._data)
        self._pepper = self._data.secret("enrolment-pepper").encode()

    # ------------------------------------------------------------ codes

    async def make_code(
        self, plant: Plant, terminal: str, *, certificate: bool, minutes: int = MINUTES, now: datetime
    ) -> tuple[str, datetime]:
        """A one-time code for an engineer to type, and its end. The terminal's unused older one ends now.

        Raises Refused: unknown_terminal, bad_minutes, certificates_need_tls.
        """
        if not 1 <= minutes <= MINUTES_MAX:
            raise Refused("bad_minutes", f"{minutes} minutes", f"1 to {MINUTES_MAX}")
        plain = "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARACTERS))
        until = now + timedelta(minutes=minutes)
        await self._keep(plant, terminal, plain, until, certificate=certificate, command="", now=now)
        return "-".join(plain[n : n + 4] for n in range(0, CODE_CHARACTERS, 4)), until

    async def rotation_code(self, plant: Plant, terminal: str, command: str, now: datetime) -> str:
        """The code that the command `rotate` of this id will carry: 256 bits, for the kind that the terminal has."""
        async with _connection(plant) as conn:
            live = await table.live(conn, terminal)
        certificate = any(one.kind == "certificate" for one in live)
        if not certificate and not self._swaps(plant):
            raise Refused(
                "rotation_elsewhere",
                "the users of this broker are not ours to change",
                "enrol it with a certificate, or give it a new secret: storeops terminal enrol-code",
            )
        plain = secrets.token_hex(32)
        await self._keep(
            plant, terminal, plain, now + ROTATION_CODE_LASTS, certificate=certificate, command=command, now=now
        )
        return plain

    async def _keep(
        self,
        plant: Plant,
        terminal: str,
        plain: str,
        until: datetime,
        *,
        certificate: bool,
        command: str,
        now: datetime,
    ) -> None:
        if certificate and not plant.terminals.certificates_port:
            raise Refused(
                "certificates_need_tls",
                "no listener of this region's broker asks for certificates",
                "set broker.tls: true (embedded) or broker.ca (by URL), or leave --certificate out",
            )
        async with _connection(plant) as conn, conn.transaction():
            found = await table.registered(conn, terminal, lock=True)
            if found is None or found.retired:
                raise Refused("unknown_terminal", f"no terminal {terminal!r} in service", "storeops terminal add")
            await table.add_code(
                conn,
                table.EnrolmentCodeRow(
                    id=secrets.token_hex(16),
                    terminal=terminal,
                    code_hmac=self._hmac(plain),
                    rotates=bool(command),
                    certificate=certificate,
                    command=command,
                    made_at=now,
                    expires_at=until,
                ),
            )
            await table.note(conn, terminal, now, "rotation_code" if command else "enrolment_code")

    def _hmac(self, plain: str) -> str:
        return hmac.digest(self._pepper, b"code " + plain.encode(), "sha256").hex()

    def _secret(self, plain: str, code: Code) -> str:
        """256 bits in hex."""
        derivation = HKDF(SHA256(), 32, salt=self._pepper, info=f"secret {code.id} {code.terminal}".encode())
        return derivation.derive(plain.encode()).hex()

    # ------------------------------------------------------------ a terminal asks

    async def redeem(self, request: EnrolRequest, address: str, *, rotates: bool) -> Enrolment:
        """Trade a code for a credential, which counts when this returns. The same code again, within ten minutes,
        gets the same credential; with another key a certificate for that one instead.

        Raises Refused: code_unknown, code_used, code_expired, csr_missing, csr_unexpected, bad_csr,
        too_many_credentials.
        """
        plain, now = normal(request.code), datetime.now(UTC)
        digest = self._hmac(plain)
        for url in self._databases():
            async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
                if await table.find_code(conn, digest) is None:
                    continue
                async with conn.transaction():
                    code = await table.find_code(conn, digest, lock=True)
                    if code is None:
                        break
                    answer, one = await self._redeemed(conn, code, plain, request, address, rotates, now)
            if not await self.apply([one.terminal]) and answer.secret is not None:
                await asyncio.to_thread(
                    self._let_in_later, self._plant_of(answer.region), answer.terminal, answer.secret
                )
            await self._until_let_in(self._plant_of(answer.region), answer)
            log.info("terminal_enrolled", terminal=one.terminal, kind=one.kind, rotated=rotates, address=address)
            return answer
        raise _unknown()

    async def _redeemed(
        self,
        conn: AsyncConnection[Any],
        code: Code,
        plain: str,
        request: EnrolRequest,
        address: str,
        rotates: bool,
        now: datetime,
    ) -> tuple[Enrolment, Stored]:
        found = await table.registered(conn, code.terminal, lock=True)
        if found is None or found.retired or code.rotates != rotates:
            raise _unknown()
        if rotates and request.terminal != code.terminal:
            raise _unknown()
        if code.certificate and request.csr is None:
            raise Refused("csr_missing", "this code is for a client certificate", "send csr, or ask for another code")
        if not code.certificate and request.csr is not None:
            raise Refused("csr_unexpected", "this code is for a secret", "leave csr out, or ask for another code")
        live = await table.live(conn, code.terminal)
        plant = self._plant_of(found.region)
        if code.used_at is not None:
            one = self._repeated(code, live, request, now)
            if one is None:  # the same device with another key: the certificate of the lost answer ends
                await table.end(conn, code.terminal, ENDED, now, only=code.credential)
                one = self._new(code, plain, request, now)
                await table.add_credential(conn, one)
        else:
            if now >= code.expires_at:
                raise Refused("code_expired", f"it ended at {code.expires_at:%H:%M:%S} UTC", "ask for a new code")
            one = self._new(code, plain, request, now)
            await (self._take_over if rotates else self._replace)(conn, found, one, live, now)
        await table.answered(conn, code.id, one.id, now)
        what = "repeated" if code.used_at is not None else "rotating" if rotates else "enrolled"
        await table.note(conn, code.terminal, now, what, one.serial or one.kind, address)
        return self._answer(found, one, None if code.certificate else self._secret(plain, code), plant), one

    @staticmethod
    def _repeated(code: Code, live: Sequence[Stored], request: EnrolRequest, now: datetime) -> Stored | None:
        """The credential that the code gave; None: one for another key. Raises Refused `code_used`."""
        assert code.used_at is not None
        same = [one for one in live if one.id == code.credential]
        if not same or now - code.used_at >= REPEAT_WITHIN or code.answers >= ANSWERS_MAX:
            raise Refused("code_used", "this code has done its work", "ask for a new code")
        changed = request.csr is not None and key_digest(request_key(request.csr)) != same[0].key_sha256
        return None if changed else same[0]

    def _new(self, code: Code, plain: str, request: EnrolRequest, now: datetime) -> Stored:
        state = NEXT if code.rotates else CURRENT
        blank = Stored(secrets.token_hex(16), code.terminal, "secret", "", "", "", "", "", now, None, state, True, now)
        if request.csr is not None:
            issued = self._authority.sign_terminal(code.terminal, request.csr, now)
            return replace(
                blank,
                kind="certificate",
                serial=issued.serial,
                certificate=issued.pem,
                key_sha256=issued.key_sha256,
                expires_at=issued.expires_at,
            )
        secret = self._secret(plain, code)
        line = password_line(code.terminal, secret)
        return replace(blank, secret_sha256=secret_sha256(secret), broker_hash=line)

    @staticmethod
    async def _replace(
        conn: AsyncConnection[Any], found: Registered, one: Stored, _live: Sequence[Stored], now: datetime
    ) -> None:
        """Enrolment: the terminal is this device from now on, whatever it was."""
        await table.add_credential(conn, one)
        await table.confirm(conn, one, now)
        await table.mark_revoked(conn, found.terminal, None)

    async def _take_over(
        self, conn: AsyncConnection[Any], found: Registered, one: Stored, live: Sequence[Stored], now: datetime
    ) -> None:
        """Rotation: the new one beside the old until it is confirmed."""
        if one.kind == "certificate":
            if len(live) > LIVE_MAX:
                raise Refused("too_many_credentials", "rotations without a `done`", "enrol it with a new code")
            await table.add_credential(conn, one)
            return
        if any(other.state == NEXT for other in live):
            raise Refused("rotation_running", "another rotation is not confirmed yet", "wait for it, then rotate again")
        if not live and (line := user_hashes(self._data).get(found.terminal)) is not None:
            # Registered by hand: what the broker holds of it is what we go back to.
            old = replace(
                one, id=secrets.token_hex(16), secret_sha256=found.secret_sha256, broker_hash=line, state=CURRENT
            )
            await table.add_credential(conn, old)
        await table.add_credential(conn, one)
        await table.put_in_force(conn, one, now)

    def _answer(self, found: Registered, one: Stored, secret: str | None, plant: Plant) -> Enrolment:
        door, shard = plant.terminals, f"{shard_of(StoreId(found.store)):02x}"
        port = door.certificates_port if one.kind == "certificate" else door.port
        return Enrolment(
            terminal=found.terminal,
            region=found.region,
            store=found.store,
            profile=found.profile,
            topic_prefix=f"so/1/{found.region}/{shard}/{found.store}/{found.terminal}",
            broker={"host": door.host, "port": port, "tls": door.tls, "ca": door.ca},
            secret=secret,
            certificate=one.certificate or None,
        )

    def _let_in_later(self, plant: Plant, terminal: str, secret: str) -> None:
        """iotcore reads its users at its next start alone."""
        if plant.broker_embedded:
            let_in(self._data, terminal, secret)

    async def _until_let_in(self, plant: Plant, answer: Enrolment) -> None:
        """The embedded broker reads its files at a signal; the terminal is not told before it has."""
        if answer.secret is None or not self._swaps(plant):
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + APPLIED_S_MAX
        while loop.time() < until:
            try:
                reason = await asyncio.to_thread(
                    mqtt_probe.login, plant.broker_host, plant.broker_port, answer.terminal, answer.secret, 1.0
                )
            except OSError:
                reason = None  # it is being started again, and reads the same files then
            if reason == mqtt_probe.SUCCESS:
                return
            await asyncio.sleep(0.05)

    # ------------------------------------------------------------ what the broker holds

    def _swaps(self, plant: Plant) -> bool:
        """Its broker is the mosquitto that runs here."""
        return plant.broker_embedded and (self._data.root / "broker" / "passwords").exists()

    async def apply(self, terminals: Sequence[str] = ()) -> bool:
        """Make the embedded mosquitto's files say what the databases say. False: it is another broker.

        `terminals`: whose secrets; always all that is revoked.
        """
        now = datetime.now(UTC)
        lines: dict[str, str | None] = {}
        serials: dict[str, datetime] = {}
        refused: list[str] = []
        for url in self._databases():
            async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
                known = await table.broker_hashes(conn, terminals)
                for terminal in terminals:
                    if await table.registered(conn, terminal) is not None:
                        lines[terminal] = known.get(terminal)
                serials |= await table.revoked_serials(conn, now)
                refused += await table.refused_terminals(conn)
        crl = await asyncio.to_thread(self._authority.revocations, serials, now)
        lines |= dict.fromkeys(set(refused) & set(await asyncio.to_thread(user_hashes, self._data)))
        if not any(self._swaps(plant) for plant in self._plants):
            return False
        return await asyncio.to_thread(set_access, self._data, lines, refused, crl)

    # ------------------------------------------------------------ rotations come to their end

    async def watch(self) -> None:
        """Confirm, take back and retry rotations, once a second, for ever."""
        first = True
        while True:
            try:
                await self.look(datetime.now(UTC), again=first)
                first = False
            except Exception as error:  # noqa: BLE001 - a database or broker that is away: the next look sees
                log.info("rotations_unseen", error=type(error).__name__)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: datetime, *, again: bool = False) -> None:
        """One look at every rotation that is not confirmed. `again`: the broker is told what is in force in any case:
        a gateway that was killed may have left it untold.
        """
        changed: list[str] = []
        for url in self._databases():
            async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
                for one in await table.pending(conn, PENDING_LOOKED_AT_MAX):
                    async with conn.transaction():
                        await table.registered(conn, one.credential.terminal, lock=True)
                        if await self._move(conn, one, now) or again:
                            changed.append(one.credential.terminal)
        if changed:
            await self.apply(changed)

    async def _move(self, conn: AsyncConnection[Any], one: Pending, now: datetime) -> bool:
        credential, terminal = one.credential, one.credential.terminal
        live = await table.live(conn, terminal)
        if credential not in live:
            return False  # changed since it was read: the next look sees it
        others = [other for other in live if other.id != credential.id and other.kind == credential.kind]
        if one.status == "done":
            await table.confirm(conn, credential, now)
            await table.note(conn, terminal, now, "rotated", credential.serial)
            return True
        if one.status in FINAL_FAILURES:
            await table.end(conn, terminal, ENDED, now, only=credential.id)
            if others and credential.kind == "secret":
                await table.put_in_force(conn, others[-1], now)
            await table.note(conn, terminal, now, "rotation_failed", one.status)
            return True
        if credential.kind == "certificate":
            return False  # both count until one is confirmed or has run out
        return await self._try_the_other(conn, one, others, now)

    async def _try_the_other(
        self, conn: AsyncConnection[Any], one: Pending, others: Sequence[Stored], now: datetime
    ) -> bool:
        """No `done` came: the terminal kept the one or the other, and the broker says which by letting it in.

        A connection under the secret that is not in force was ended when the other was put there, so a terminal that
        is online a while later has the one that is.
        """
        credential, patience = one.credential, self._patience
        present = credential if credential.in_force else next((other for other in others if other.in_force), None)
        since = max(credential.moved_at, one.changed_at or credential.moved_at)
        if present is None or not others:
            return False
        if one.online and now - credential.moved_at >= patience.settled and now - since >= patience.unseen:
            if present is credential:
                await table.confirm(conn, credential, now)
            else:
                await table.end(conn, credential.terminal, ENDED, now, only=credential.id)
            await table.note(conn, credential.terminal, now, "rotation_settled", present.state)
            return True
        if not one.online and now - since >= patience.unseen:
            other = others[-1] if present is credential else credential
            await table.put_in_force(conn, other, now)
            await table.note(conn, credential.terminal, now, "rotation_other_secret", other.state)
            return True
        return False

    # ------------------------------------------------------------ revocation

    async def revoke(self, plant: Plant, terminal: str, now: datetime) -> dict[str, str | int | bool]:
        """Nothing of this terminal counts any more, secret or certificate; its connection ends, its hosts refuse it.

        To undo it, enrol it again with a new code. Raises Refused `unknown_terminal`.
        """
        async with _connection(plant) as conn, conn.transaction():
            if await table.registered(conn, terminal, lock=True) is None:
                raise Refused("unknown_terminal", f"no terminal {terminal!r}", "see the console's list of terminals")
            ended = await table.live(conn, terminal)
            await table.end(conn, terminal, REVOKED, now)
            await conn.execute("UPDATE terminal SET secret_sha256 = '-' WHERE id = %s", (terminal,))
            await table.mark_revoked(conn, terminal, now)
            await end_keys(conn, terminal, "terminal revoked", now)
            await table.note(conn, terminal, now, "revoked", f"{len(ended)} credentials")
        at_once = await self.apply([terminal])
        return {
            "terminal": terminal,
            "credentials": len(ended),
            "broker": "refuses it" if at_once else "reload it: storeops deploy mosquitto DIR, then SIGHUP",
            "connection": "ended" if await self.throw_out(plant, terminal) else "not reached",
            "host": "refuses it within a second or two",
        }

    async def end_of_service(self, plant: Plant, terminal: str, now: datetime) -> None:
        """A retired terminal's secrets and certificates count no more; its connection ends."""
        async with _connection(plant) as conn, conn.transaction():
            await table.end(conn, terminal, REVOKED, now)
            await end_keys(conn, terminal, "terminal retired", now)
            await table.note(conn, terminal, now, "retired")
        await self.apply([terminal])
        await self.throw_out(plant, terminal)

    async def throw_out(self, plant: Plant, terminal: str) -> bool:
        """End a live connection by taking its client id over as the host user; its session goes with it."""
        context = plant.link_config(0).tls
        try:
            reason = await asyncio.to_thread(
                mqtt_probe.login,
                plant.broker_host,
                plant.broker_port,
                plant.broker_user,
                plant.broker_password,
                2.0,
                context,
                terminal,
            )
        except OSError:
            return False
        return reason == mqtt_probe.SUCCESS

    def _databases(self) -> list[str]:
        return list(dict.fromkeys(plant.database_url for plant in self._plants))

    def _plant_of(self, region: str) -> Plant:
        for plant in self._plants:
            if plant.region == region:
                return plant
        raise NeedsOperator("region_not_served", f"region {region!r} is not served here", "check the settings")


def normal(code: str) -> str:
    """As it was made: people write small letters, hyphens, O for 0 and I or L for 1. A rotation's stays as it is."""
    if len(code) > 2 * CODE_CHARACTERS:
        return code
    plain = "".join(char for char in code.upper() if char not in "- ")
    return plain.replace("O", "0").replace("I", "1").replace("L", "1")


def _unknown() -> Refused:
    return Refused("code_unknown", "there is no such code", "ask for a new code")


@asynccontextmanager
async def _connection(plant: Plant) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(plant.database_url, autocommit=True, connect_timeout=5) as conn:
        yield conn
