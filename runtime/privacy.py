"""What the privacy officer, a member and the command line do with a person's data, in whichever database it is kept.

Each verb is one transaction with its line in the audit. Templates and keys go by `runtime.erasure`; what decides is in
`models.domain.privacy`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection, IsolationLevel

from models.domain.errors import Refused
from models.domain.ids import ChainId, MemberId
from models.domain.privacy import (
    FILING_FACES,
    RETENTION_DEFAULT,
    Age,
    RequestKind,
    RequestState,
    RetentionPolicy,
    TemplateEnd,
    check_erasable,
    check_four_eyes,
    filing_level,
    template_end,
    template_permitted,
)
from models.tables import persons
from models.tables.clock import business_now
from models.tables.member_money import require_settled
from models.tables.persons import Connection, Person, PrivacyRequest
from models.tables.privacy import ChainCheck, audit, verify
from models.tables.pruning import prune_feed
from runtime.clock import Wall, wall_now
from runtime.erasure import erase_member, left_by_scrub, scrub
from runtime.privacy_checkpoints import Checkpoints

STANDINGS_AT_ONCE = 500
DECISIONS_AT_ONCE = 5_000
NUMBERS_KEPT = timedelta(days=1)
"""How long an answered enrolment keeps the phone number that it was asked with: an operator may have to repeat it."""
SWEEP_LOCK_KEY = 0x50524956  # "PRIV"
REASON_CHARACTERS_MAX = 400

Progress = Callable[[str], None]


def _silent(_line: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Swept:
    """One sweep of one database: members whose templates went, by why; decisions, phone numbers and changes of
    galleries forgotten."""

    faces: Mapping[str, int]
    decisions: int
    numbers: int
    gallery_changes: int

    def as_document(self) -> dict[str, int]:
        """For the audit and for `--json`."""
        return {
            **{f"faces_{why}": n for why, n in self.faces.items()},
            "decisions": self.decisions,
            "numbers": self.numbers,
            "gallery_changes": self.gallery_changes,
        }


class Privacy:
    """The verbs. `urls`: the deployment's databases, each once; a member's id is in one of them."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        policy: RetentionPolicy = RETENTION_DEFAULT,
        checkpoints: Checkpoints | None = None,
        scrubs: bool = True,
        wall: Wall = wall_now,
    ) -> None:
        """`scrubs`: each verb also waits until the bytes have left the database's files; else `scrub_due` does it."""
        self._urls = tuple(dict.fromkeys(urls))
        self._policy = policy
        self._checkpoints = checkpoints
        self._scrubs = scrubs
        self._wall = wall

    async def scrub_due(self) -> int:
        """Make what was erased since the last scrub leave the databases' files; how many databases had some."""
        return sum([bool((await scrub(url)).done) for url in self._urls])

    async def _scrub(self, url: str) -> None:
        if self._scrubs:
            await scrub(url)

    # ------------------------------------------------------------ whom is it about

    async def person(self, member: str) -> Person:
        """The member. Raises Refused `unknown_member`."""
        async with self._of(member) as (conn, _):
            found = await persons.find_person(conn, member)
            assert found is not None
            return found

    @asynccontextmanager
    async def _of(self, member: str) -> AsyncIterator[tuple[Connection, str]]:
        """A connection to the database that knows the member, and its URL; commits at the end."""
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                if await persons.find_person(conn, member) is not None:
                    yield conn, url
                    return
        raise Refused("unknown_member", f"there is no member {member!r}", "see the console's list of members")

    @asynccontextmanager
    async def _with_request(self, request: str) -> AsyncIterator[tuple[Connection, str, PrivacyRequest]]:
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                found = await persons.lock_request(conn, request)
                if found is not None:
                    yield conn, url, found
                    return
        raise Refused("unknown_request", f"there is no request {request!r}", "see the console's list of requests")

    # ------------------------------------------------------------ withdrawal

    async def withdraw(self, member: str, *, by: str, via: str, reason: str) -> PrivacyRequest:
        """End the standing consent and erase every template and key of the member; at once, and nobody approves it.

        Again: a request that erased nothing. Raises Refused `unknown_member`, `reason_missing`.
        """
        check_reason(reason)
        async with self._of(member) as (conn, url):
            done = await withdraw_in(conn, member, at=self._wall(), by=by, via=via, reason=reason)
        await self._scrub(url)
        return done

    # ------------------------------------------------------------ the whole person

    async def ask_erasure(self, member: str, *, by: str, via: str, reason: str) -> PrivacyRequest:
        """A request that somebody else must approve; one that is open already is the answer.

        The face goes at once: nothing has to be approved for that. Raises Refused `unknown_member`, `reason_missing`,
        `membership_open` with what to do, `person_erased` when nothing is left that leads to them.
        """
        check_reason(reason)
        now = self._wall()
        async with self._of(member) as (conn, url):
            person = await persons.find_person(conn, member, lock=True)
            assert person is not None
            if not person.known and await persons.was_erased(conn, member):
                raise Refused("person_erased", f"{member} is erased already", "nothing has to be done")
            check_erasable(await persons.open_memberships(conn, member))
            await require_settled(conn, member)
            request = await persons.add_request(
                conn, _request(person, RequestKind.ERASE_PERSON, RequestState.OPEN, by, via, reason, now)
            )
            if person.templates:
                await withdraw_in(conn, member, at=now, by=by, via=via, reason=reason)
            await audit(conn, "erasure_asked", member, {"request": request.id, "via": via}, by, now)
        if person.templates:
            await self._scrub(url)
        return request

    async def approve(self, request: str, *, by: str) -> PrivacyRequest:
        """Erase the person of an open request. Raises Refused `unknown_request`, `request_over`, `four_eyes`,
        `membership_open` (one may have been opened since)."""
        now = self._wall()
        async with self._with_request(request) as (conn, url, found):
            if found.state is not RequestState.OPEN:
                raise Refused("request_over", f"the request is {found.state.value}", "nothing has to be done")
            check_four_eyes(found.asked_by, by)
            person = await persons.find_person(conn, found.member, lock=True)
            assert person is not None
            check_erasable(await persons.open_memberships(conn, found.member))
            await require_settled(conn, found.member)
            erased = await erase_member(
                conn, ChainId(found.chain), MemberId(found.member), at=now, reason="person_erased", by=by
            )
            await persons.end_standing_consent(conn, found.member, now, by)
            counts = await persons.erase_identity(conn, found.member)
            result: dict[str, object] = {"templates": erased.templates, "keys": erased.keys, **counts}
            await persons.end_request(conn, request, RequestState.DONE, by, now, result)
            detail: dict[str, str | int] = {"request": request, "asked_by": found.asked_by, **counts}
            await audit(conn, "person_erased", found.member, detail, by, now)
        await self._scrub(url)
        return replace(found, state=RequestState.DONE, approved_by=by, done_at=now, result=result)

    async def refuse(self, request: str, *, by: str, reason: str) -> PrivacyRequest:
        """Say no to an open request, with the reason that the person is told. Raises Refused as `approve`."""
        check_reason(reason)
        now = self._wall()
        async with self._with_request(request) as (conn, _, found):
            if found.state is not RequestState.OPEN:
                raise Refused("request_over", f"the request is {found.state.value}", "nothing has to be done")
            await persons.end_request(conn, request, RequestState.REFUSED, by, now, {"why": reason})
            await audit(conn, "erasure_refused", found.member, {"request": request}, by, now)
        return replace(found, state=RequestState.REFUSED, approved_by=by, done_at=now, result={"why": reason})

    # ------------------------------------------------------------ children

    async def mark_age(self, member: str, age: Age, *, by: str) -> int:
        """Keep what is known of the member's age, in place of what was; templates that may not be are erased: how many.

        Raises Refused `unknown_member`, `birth_year`.
        """
        now = self._wall()
        async with self._of(member) as (conn, url):
            await persons.find_person(conn, member, lock=True)
            business = await _business(conn, now)
            if age.birth_year is not None and age.birth_year > business.year:
                raise Refused("birth_year", f"{age.birth_year} is still to come", "give the year of birth")
            await persons.save_age(conn, member, age, by, now)
            permitted = template_permitted(age, business.year)
            await audit(conn, "age_marked", member, {"template_permitted": permitted}, by, now)
            erased = 0
            if not permitted:
                done = await withdraw_in(
                    conn, member, at=now, by=by, via="age", reason=TemplateEnd.UNDER_14.value, quiet=True
                )
                erased = templates_of(done)
        if erased:
            await self._scrub(url)
        return erased

    # ------------------------------------------------------------ export

    async def export(self, member: str, *, by: str, via: str, reason: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(section, row) of everything that is kept about the member; the audit has the export before its first row.

        Raises Refused `unknown_member`, `reason_missing` before anything is read.
        """
        check_reason(reason)
        now = self._wall()
        async with self._of(member) as (conn, url):
            person = await persons.find_person(conn, member)
            assert person is not None
            done = _request(person, RequestKind.EXPORT, RequestState.DONE, by, via, reason, now)
            await persons.add_request(conn, replace(done, approved_by=by, done_at=now))
            await audit(conn, "exported", member, {"request": done.id, "via": via}, by, now)
        return self._rows(url, member)

    async def _rows(self, url: str, member: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async with await AsyncConnection.connect(url) as conn:
            await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await conn.set_read_only(True)
            async for section, row in persons.export_rows(conn, member):
                yield section, row

    # ------------------------------------------------------------ retention

    async def sweep(self, progress: Progress = _silent) -> dict[str, int]:
        """Erase and forget everything whose time is over by the business clock, in every database; what went.

        Repeating it changes nothing. A sweep that runs already elsewhere is left to it. Also writes the audit's
        checkpoint, so that cutting off its end is found out.
        """
        totals: dict[str, int] = {}
        for url in self._urls:
            async with await AsyncConnection.connect(url, autocommit=True) as conn:
                cursor = await conn.execute("SELECT pg_try_advisory_lock(%s)", (SWEEP_LOCK_KEY,))
                row = await cursor.fetchone()
                if row is None or not row[0]:
                    continue
                swept = await self._sweep(conn, progress)
                if self._checkpoints is not None:
                    await self._checkpoints.write(conn, self._wall())
                # a closed connection gives the lock back too, but only when the server has noticed
                await conn.execute("SELECT pg_advisory_unlock(%s)", (SWEEP_LOCK_KEY,))
            document = swept.as_document()
            if swept.faces:
                await self._scrub(url)
            for name, count in document.items():
                totals[name] = totals.get(name, 0) + count
        return totals

    async def _sweep(self, conn: Connection, progress: Progress) -> Swept:
        wall = self._wall()
        now = await _business(conn, wall)
        faces: dict[str, int] = {}
        after, looked = "", 0
        while standings := await persons.template_standings(conn, after, STANDINGS_AT_ONCE):
            for member, chain, standing in standings:
                why = template_end(standing, self._policy, now)
                if why is None:
                    continue
                async with conn.transaction():
                    await persons.find_person(conn, member, lock=True)
                    await erase_member(
                        conn, ChainId(chain), MemberId(member), at=wall, reason=why.value, by="retention"
                    )
                    await persons.end_standing_consent(conn, member, wall, "retention")
                faces[why.value] = faces.get(why.value, 0) + 1
            after, looked = standings[-1][0], looked + len(standings)
            progress(f"{looked} members with a template looked at, {sum(faces.values())} erased")
        decisions = 0
        before = now - timedelta(days=self._policy.decision_days)
        while gone := await persons.forget_decisions(conn, before, DECISIONS_AT_ONCE):
            decisions += gone
            progress(f"{decisions} face decisions older than {self._policy.decision_days} days counted and forgotten")
        numbers = await persons.forget_numbers(conn, wall - NUMBERS_KEPT)
        changes = 0
        while gone := await prune_feed(conn, wall):
            changes += gone
            progress(f"{changes} changes of galleries forgotten that every reader has read")
        swept = Swept(faces, decisions, numbers, changes)
        if any(swept.as_document().values()):
            async with conn.transaction():
                await audit(conn, "retention_swept", "", swept.as_document(), "retention", wall)
        return swept

    # ------------------------------------------------------------ counts and the audit

    async def report(self) -> dict[str, Any]:
        """Distinct faces by chain and in all against the filing threshold, requests, the policy, what the last scrub
        could not do, with what a person has to do."""
        chains: dict[str, int] = {}
        requests: dict[str, int] = {}
        unscrubbed: list[str] = []
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                unscrubbed += await left_by_scrub(conn)
                for into, counts in (
                    (chains, await persons.distinct_faces(conn)),
                    (requests, await persons.request_counts(conn)),
                ):
                    for name, count in counts.items():
                        into[name] = into.get(name, 0) + count
        distinct = sum(chains.values())
        return {
            "distinct_faces": distinct,
            "filing_threshold": FILING_FACES,
            "filing_level": filing_level(distinct).value,
            "chains": {
                name: {"distinct_faces": n, "filing_level": filing_level(n).value} for name, n in chains.items()
            },
            "requests": requests,
            "unscrubbed": unscrubbed,
            "retention_days": {
                "template_idle": self._policy.template_idle_days,
                "after_membership": self._policy.after_membership_days,
                "face_decisions": self._policy.decision_days,
            },
        }

    async def verify(self) -> list[ChainCheck]:
        """Walk the audit of every database, and hold it against the last checkpoint that is kept outside of it."""
        checks = []
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                kept = None if self._checkpoints is None else await self._checkpoints.last(conn)
                checks.append(await verify(conn, kept))
        return checks


async def withdraw_in(
    conn: Connection,
    member: str,
    *,
    at: datetime,
    by: str,
    via: str,
    reason: str,
    quiet: bool = False,
    request_id: str = "",
) -> PrivacyRequest:
    """Withdraw inside the caller's transaction: consent ended, templates and keys erased, a finished request written.

    The caller scrubs after the commit. `quiet`: nothing was asked for, so no request is written. `request_id`: of a
    caller that may come again.
    """
    person = await persons.find_person(conn, member, lock=True)
    if person is None:
        raise Refused("unknown_member", f"there is no member {member!r}")
    ended = await persons.end_standing_consent(conn, member, at, by)
    erased = await erase_member(conn, ChainId(person.chain), MemberId(member), at=at, reason=reason_code(via), by=by)
    result: dict[str, object] = {"templates": erased.templates, "keys": erased.keys, "consents": ended}
    done = _request(person, RequestKind.WITHDRAW_FACE, RequestState.DONE, by, via, reason, at)
    done = replace(done, approved_by=by, done_at=at, result=result)
    if request_id:
        done = replace(done, id=request_id)
    return done if quiet else await persons.add_request(conn, done)


def templates_of(done: PrivacyRequest) -> int:
    """How many templates a finished withdrawal erased."""
    return int(str((done.result or {}).get("templates", 0)))


def reason_code(via: str) -> str:
    """Why templates went, in the audit: a code, never what a person wrote."""
    return "under_14" if via == "age" else f"withdrawn_by_{via}"


def check_reason(reason: str) -> None:
    """Raises Refused `reason_missing`: who touches a person's data says why."""
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise Refused(
            "reason_missing", "why is this done?", f"give a reason of at most {REASON_CHARACTERS_MAX} characters"
        )


def _request(
    person: Person, kind: RequestKind, state: RequestState, by: str, via: str, reason: str, now: datetime
) -> PrivacyRequest:
    return PrivacyRequest(str(uuid.uuid4()), person.chain, person.id, kind, state, via, reason, by, now, "", None, None)


async def _business(conn: Connection, wall: datetime) -> datetime:
    async with conn.cursor() as cursor:
        return await business_now(cursor, wall)
