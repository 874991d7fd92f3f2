"""What must hold at every step of a simulated shop, and what must hold once it is quiet again."""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

import msgspec

from actors.effects import Ask
from actors.visit import Session
from devices.codec import decode_reply, decode_screen
from devices.topics import Down, Up, parse
from models.domain.charging import UseClass
from models.domain.events import TenderKind
from models.domain.ids import TerminalId, derived_id, event_cause
from models.domain.messages import SaleTender
from models.domain.screen import ReplyBody
from models.tables.journal import Commit
from runtime.engine import decode_state
from runtime.testing.journal import MemoryDatabase
from runtime.testing.memberships import MemberBooks
from runtime.testing.provider import MemoryProvider
from runtime.testing.terminal import Counter

TRANSIENT = frozenset({"id_conflict", "already_processed"})


class InvariantBroken(AssertionError):
    """What must never happen happened."""


def _taken(tenders: tuple[SaleTender, ...]) -> int:
    return sum(tender.fen for tender in tenders if tender.kind is not TenderKind.COUPON)


class Auditor:
    """Watches the wire and the journal of one shop. Each method raises InvariantBroken with what was wrong."""

    def __init__(self, database: MemoryDatabase, books: MemberBooks, provider: MemoryProvider) -> None:
        self.floods = False
        """Somebody sends faster than allowed: what is acknowledged and left out comes again."""
        self._database = database
        self._books = books
        self._provider = provider
        self._replied: dict[tuple[TerminalId, str], ReplyBody] = {}
        self._shown: dict[str, int] = {}

    # ------------------------------------------------------------ on the wire

    def published(self, topic: str, payload: bytes) -> None:
        """Durable before visible; one answer per id, the same to every duplicate; screens only forward."""
        where = parse(topic)
        if where.channel is Down.REPLY:
            reply = decode_reply(payload)
            if reply.id is None or (reply.error is not None and reply.error.code in TRANSIENT):
                return
            row = self._database.inbox.get((where.terminal, reply.id))
            _require(row is not None, f"a reply was published before its message was committed: {reply}")
            assert row is not None
            _require(row.reply is not None and decode_reply(row.reply) == reply, f"not the reply of the inbox: {reply}")
            first = self._replied.setdefault((where.terminal, reply.id), reply)
            _require(first == reply, f"two answers to one question: {first} and {reply}")
        elif where.channel is Down.SCREEN:
            screen = decode_screen(payload)
            last = self._shown.get(f"{where.terminal}:{screen.session}", 0)
            _require(screen.rev >= last, f"a screen went back from {last} to {screen.rev}")
            self._shown[f"{where.terminal}:{screen.session}"] = screen.rev
            stored = [s for s in self._sessions() if s.id == screen.session]
            _require(
                not stored or stored[0].rev >= screen.rev, f"screen {screen.rev} was shown before it was committed"
            )

    def acknowledged(self, topic: str, payload: bytes, properties: Mapping[str, str]) -> None:
        """Ack after the commit, never before."""
        where = parse(topic)
        if where.channel in (Up.EVENT, Up.FACE):
            ident = properties.get("id") or msgspec.json.decode(payload)["id"]
            _require(
                self.floods or (where.terminal, ident) in self._database.inbox,
                f"{where.terminal}'s message {ident} was lost by an ack",
            )

    def asked(self, ask: Ask) -> None:
        """What has an effect outside is written down before it is asked."""
        _require(not ask.request.durable or ask.id in self._database.outbox, f"asked before it was committed: {ask}")

    # ------------------------------------------------------------ at each commit

    def committed(self, commit: Commit) -> None:
        """The books after each commit that booked something."""
        for sale in self._database.sales.values() if commit.facts else ():
            taken = _taken(sale.tenders)
            _require(sale.gross_fen - sale.discount_fen == sale.due_fen, f"lines do not add up: {sale}")
            _require(taken == sale.due_fen - sale.rounding_fen + sale.suspense_fen, f"takings do not add up: {sale}")
        if commit.facts:
            self._one_sale_per_order()
            self._returns()
            self._ledger()

    def _one_sale_per_order(self) -> None:
        orders = Tally(t.order for sale in self._database.sales.values() for t in sale.tenders if t.order)
        _require(all(n == 1 for n in orders.values()), f"an order was booked twice: {orders}")
        visits = Tally(sale.session for sale in self._database.sales.values() if sale.session)
        _require(all(n == 1 for n in visits.values()), f"two sales name one visit: {visits}")
        for sale in self._database.sales.values():
            for tender in sale.tenders:
                if tender.order and sale.id not in self._database.voids:
                    order = self._provider.orders.get(tender.order)
                    _require(order is not None and order.paid, f"booked what was never paid: {tender}")
                    assert order is not None
                    _require(order.fen == tender.fen and not order.reversed, f"booked {tender}, provider has {order}")

    def _returns(self) -> None:
        """However goods come back: never more pieces, money or benefit than were sold, and never beside a void."""
        for sale in self._database.sales.values():
            returns = self._database.returns_of(sale.id)
            if not returns:
                continue
            _require(sale.id not in self._database.voids, f"voided and returned: {sale}")
            pieces = Tally[int]()
            for back in returns:
                pieces.update({line.line: line.quantity for line in back.lines})
                given = back.due_fen - back.rounding_fen + back.suspense_fen
                _require(_taken(back.tenders) == given, f"a return does not add up: {back}")
                _require(all(tender.fen >= 0 for tender in back.tenders), f"a return takes money: {back}")
            sold = {line.line: line.quantity for line in sale.lines}
            _require(all(pieces[n] <= sold.get(n, 0) for n in pieces), f"more came back than was sold: {returns}")
            gone = sum(_taken(back.tenders) for back in returns)
            _require(gone <= _taken(sale.tenders), f"more went back than was paid: {returns}")
            if pieces == sold:
                kept = max(sale.suspense_fen, 0)
                _require(_taken(sale.tenders) - gone == kept, f"all came back, {kept} stay: {returns}")

    def _ledger(self) -> None:
        """Takings of all sales that stand = what the tills and clearing accounts hold; each transaction sums to 0."""
        accounts: defaultdict[str, int] = defaultdict(int)
        for transaction in self._database.ledger.values():
            for entry in transaction.entries:
                accounts[entry.account.split(":")[0]] += entry.amount_fen
        standing = [sale for sale in self._database.sales.values() if sale.id not in self._database.voids]
        backs = list(self._database.returns.values())
        kept = sum(_taken(sale.tenders) for sale in standing) - sum(_taken(back.tenders) for back in backs)
        _require(
            accounts["till"] + accounts["provider_clearing"] == kept, "the ledger holds another sum than was taken"
        )
        waits = sum(sale.suspense_fen for sale in standing) - sum(back.suspense_fen for back in backs)
        _require(-accounts["suspense"] == waits, "suspense differs")
        sold = sum(sale.due_fen for sale in standing) - sum(back.due_fen for back in backs)
        agency = sum(sale.agency_fen for sale in standing)
        _require(-accounts["sales_gross"] == sold - agency, "sales differ")

    # ------------------------------------------------------------ when it is quiet

    def is_quiet(self, wall: datetime) -> bool:
        """Every visit is over, every ask answered, and no timer is due."""
        database = self._database
        return (
            all(row.done for row in database.outbox.values())
            and all(row.reply is not None for row in database.inbox.values())
            and all(timer.due_at > wall for timer in database.timers.values())
            and not any(session.live or session.busy for session in self._sessions())
        )

    def quiet(self, wall: datetime, counters: list[Counter]) -> None:
        """The end: nobody waits, nothing is open, and every book tells the same."""
        database = self._database
        _require(not database.dead, f"dead letters: {database.dead}")
        waiting = [row for row in database.inbox.values() if row.reply is None]
        _require(not waiting, f"without a reply: {waiting}")
        undone = [row for row in database.outbox.values() if not row.done]
        _require(not undone, f"asks that never ended: {undone}")
        overdue = [timer for timer in database.timers.values() if timer.due_at <= wall]
        _require(not overdue, f"timers that never fired: {overdue}")
        for session in self._sessions():
            _require(not session.live and not session.busy, f"a lane waits for ever: {session}")
            _require(session.question is None and session.enrolment is None, f"a question is open: {session}")
        self.committed(Commit(facts=[]))
        self._one_sale_per_order()
        self._ledger()
        self._provider_agrees()
        self._uses_agree()
        self._stores_agree()
        for counter in counters:
            self._counter_agrees(counter)

    def _sessions(self) -> list[Session]:
        found = (
            decode_state(at.kind, row.state) for at, row in self._database.entities.items() if at.kind == "session"
        )
        return [state for state in found if isinstance(state, Session)]

    def _provider_agrees(self) -> None:
        """Captured - refunded by the provider's own books = our tenders of the sales that stand, order by order."""
        ours: dict[str, int] = {}
        for sale in self._database.sales.values():
            for tender in sale.tenders:
                if tender.order:
                    ours[tender.order] = 0 if sale.id in self._database.voids else tender.fen
            for back in self._database.returns_of(sale.id):
                for tender in back.tenders:
                    if tender.order:
                        ours[tender.order] -= tender.fen
        theirs = {number: order.kept_fen for number, order in self._provider.orders.items() if order.kept_fen}
        _require(theirs == {k: v for k, v in ours.items() if v}, f"the provider has {theirs}, we have {ours}")
        _require(not self._provider.blind, f"paid again without asking first: {self._provider.blind}")
        still_open = [order for order in self._provider.orders.values() if not order.paid and not order.closed]
        _require(not still_open, f"orders were left open: {still_open}")

    def _uses_agree(self) -> None:
        """Each use of a sale is posted once; u is what stands; no reservation outlives its payment."""
        books, database = self._books, self._database
        sold = [use.usage for sale in database.sales.values() for use in sale.uses if use.membership in books.rows]
        _require(Tally(sold) == Tally(list(books.usage)), "uses posted and uses sold differ")
        for sale in database.sales.values():
            for use in sale.uses:
                if use.membership not in books.rows:
                    continue
                line = books.usage[use.usage]
                back = [
                    part.fen for one in database.returns_of(sale.id) for part in one.uses if part.usage == use.usage
                ]
                gone = use.fen if sale.id in database.voids else sum(back)
                _require((line.use, line.sale) == (use, sale.id), f"posted {line} for {use}")
                _require(line.reversed_fen == gone <= use.fen, f"reversed {line.reversed_fen} of {use}")
        for row in books.rows.values():
            lines = [line for line in books.usage.values() if line.use.membership == row.id]
            used = sum(line.use.fen - line.reversed_fen for line in lines if line.use_class is UseClass.REGULAR)
            _require(row.used_fen == used, f"u of {row} should be {used}")
            _require(used <= sum(b.value_fen * b.quota for b in books.plan.benefits), f"over quota: {row}")
        self._leases_agree()
        for usage, reservation in books.reservations.items():
            posted = usage in books.usage
            _require(posted == (reservation.state == "posted"), f"{reservation} and its sale differ")
            _require(reservation.state != "open", f"a payment that is over still holds {reservation}")

    def _leases_agree(self) -> None:
        """A lease counts the uses that came back from it: each REGULAR, never more than it gave."""
        books = self._books
        for lease in books.leases.values():
            lines = [line for line in books.usage.values() if line.use.lease == lease.id]
            regular = [line for line in lines if line.use_class is UseClass.REGULAR]
            _require(lease.used <= lease.uses, f"more than was leased: {lease}")
            _require(lease.used <= len(regular), f"a leased use is not REGULAR: {lines} of {lease}")
        for row in books.rows.values():
            for benefit in books.plan.benefits:
                taken = [
                    line
                    for line in books.usage.values()
                    if (line.use.membership, line.use.benefit) == (row.id, benefit.id)
                    and line.use_class is UseClass.REGULAR
                    and line.reversed_fen < line.use.fen
                ]
                _require(len(taken) <= benefit.quota, f"{len(taken)} uses of {benefit.quota}: {row}")

    def _stores_agree(self) -> None:
        """A store's figures and a lane's receipts are the facts'."""
        database = self._database
        for at, row in database.entities.items():
            if at.kind != "store":
                continue
            figures = msgspec.json.decode(row.state)
            sales = [sale for sale in database.sales.values() if sale.store == at.store]
            standing = [sale for sale in sales if sale.id not in database.voids]
            _require(figures["sales"] == len(standing), f"{at.store} counts {figures['sales']}, has {len(standing)}")
            backs = [back for back in database.returns.values() if back.store == at.store]
            takings = sum(_taken(sale.tenders) for sale in standing) - sum(_taken(back.tenders) for back in backs)
            _require(figures["takings_fen"] == takings, f"{at.store} counts {figures['takings_fen']}, took {takings}")
        for at, row in database.entities.items():
            if at.kind == "session":
                made = [s for s in database.sales.values() if (s.store, s.lane) == (at.store, at.id)]
                _require(msgspec.json.decode(row.state)["receipts"] == len(made), f"receipts of {at}")

    def _counter_agrees(self, counter: Counter) -> None:
        """What people at the counter know: what was refused took nothing, what a till took is booked once."""
        record = counter.face.record
        for device in (counter.face, counter.till):
            _require(device is None or not device.waiting, f"{record.terminal} still waits")
        for event, ok in counter.report.confirms.items():
            if not ok:
                sale = derived_id(event_cause(record.terminal, event), "sale")
                _require(sale not in self._database.sales, f"refused, and booked: {event}")
        for txn, reports in counter.report.paid_by_till.items():
            booked = [
                sale for sale in self._database.sales.values() if (sale.store, sale.till_txn) == (record.store, txn)
            ]
            said = sorted({fen for _, fen in reports})
            _require(sorted(_taken(sale.tenders) for sale in booked) == said, f"till took {reports}, booked {booked}")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantBroken(what)
