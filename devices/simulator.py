"""A simulated terminal that plays customers' visits, with photographs for faces and a simulated provider for money.

Each verb does what a person at the counter does and returns the screen that follows; a refusal by the server raises
`Refused` with its code. Nothing here sleeps: it waits for screens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx
import uuid_utils

from devices.agent_config import AgentConfig
from devices.terminal import TerminalAgent, require_ok
from models.domain.errors import Refused, RetryLater
from models.domain.ids import SessionId
from models.domain.screen import ReplyBody, Screen, ScreenState

SCREEN_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 15.0
PAYMENT_TIMEOUT_S = 75.0
"""The server asks a provider for 60 s before it gives up."""
FACE_TRIES_MAX = 3
TURNS_MAX = 5
"""Turns of the head that a customer has the patience for."""

_ENDED = frozenset({ScreenState.PAID, ScreenState.DECLINED, ScreenState.CLOSED, ScreenState.QUOTED})
_SHOT_PROMPTS = frozenset(
    {
        "look_at_camera",
        "come_closer",
        "look_straight",
        "hold_still",
        "more_light",
        "less_light",
        "take_off_mask",
        "take_off_glasses",
        "several_faces",
        "not_recognised",
        "face_lost",
    }
)


class ProviderUsers:
    """What customers do with the payment provider, over the provider simulator's plain HTTP calls."""

    def __init__(self, http: httpx.AsyncClient, url: str, name: str = "alipay") -> None:
        """`name` is the provider's name in tenders and authorisations."""
        self.name = name
        self._http = http
        self._url = url.rstrip("/")

    async def face_token(self, user: str) -> str:
        """The provider's own face payment at the terminal: a token, valid once, for a short time."""
        return str((await self._post(f"/sim/users/{user}/face-token"))["token"])

    async def payment_code(self, user: str) -> str:
        """The payment code on the customer's phone."""
        return str((await self._post(f"/sim/users/{user}/payment-code?provider={self.name}"))["token"])

    async def pay(self, user: str, qr_code: str) -> None:
        """Scan a collection code and pay it."""
        await self._post("/sim/pay", {"user": user, "qr_code": qr_code})

    async def authorise(self, user: str, code: str) -> None:
        """Authorise a freeze by its code."""
        await self._post("/sim/holds/authorise", {"user": user, "code": code})

    async def _post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = await self._http.post(self._url + path, json=body)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise Refused("provider_refused", f"{path}: {error.response.text[:200]}") from error
        except httpx.HTTPError as error:
            raise RetryLater("provider_unreachable", f"{path}: {error}", "start the provider simulator") from error
        document: dict[str, Any] = answer.json()
        return document


class SimulatedTerminal:
    """One terminal and whoever stands before it. One verb at a time.

    `screen_timeout_s`, `reply_timeout_s`: how long it waits; whoever plays through an outage makes them longer.
    """

    def __init__(self, agent: TerminalAgent, provider: ProviderUsers | None = None) -> None:
        self.agent = agent
        self.session: SessionId | None = None
        self.till_txn: str | None = None
        self.screen_timeout_s = SCREEN_TIMEOUT_S
        self.reply_timeout_s = REPLY_TIMEOUT_S
        self.liveness: float | None = None
        """What its depth camera says of whoever looks at it, 0 to 1; None: it sends no score."""
        self._provider = provider
        self._basket_rev = 0

    @classmethod
    def of(cls, config: AgentConfig, provider: ProviderUsers | None = None) -> SimulatedTerminal:
        """A terminal with an agent of its own."""
        return cls(TerminalAgent(config), provider)

    @property
    def screen(self) -> Screen:
        """What is shown now. Raises Refused when nothing is."""
        if self.agent.screen is None:
            raise Refused("no_screen", "nothing was shown yet")
        return self.agent.screen

    # ------------------------------------------------------------ coming, being recognised, enrolling

    async def open_session(self, till_txn: str | None = None) -> Screen:
        """A customer steps up."""
        self.session = None
        self.till_txn = till_txn
        return await self._act("session.open", {} if till_txn is None else {"till_txn": till_txn})

    async def join(self, timeout_s: float = SCREEN_TIMEOUT_S) -> Screen:
        """Take part in the visit that another terminal of the lane opened."""
        screen = await self.agent.wait_screen(lambda s: s.state is not ScreenState.CLOSED, timeout_s)
        self.session = screen.session
        return screen

    async def consent(self, purpose: str = "recognise", *, granted: bool = True, text: str | None = None) -> Screen:
        """Grant or refuse one purpose; `text` is the version of the text that was shown."""
        body = {"purpose": purpose, "text": text or self._consent_version(purpose), "granted": granted}
        return await self._act("consent", body)

    async def show(self, photo: bytes, *, kind: str = "frame", turned: Mapping[str, bytes] | None = None) -> Screen:
        """Look into the camera; with `turned`, also when the screen asks to turn the head.

        `turned`: the same person by direction, `left` and `right`. Who has no such photograph stands still: the screen
        asks again, then for digits. None: nothing answers the screen, and the next look is somebody else's to take.
        """
        screen = await self._look(photo, kind)
        for turn in range(TURNS_MAX):
            prompt = screen.prompt
            if turned is None or prompt is None or prompt.code != "turn_head":
                break
            answer = turned.get(str(prompt.params["direction"]))
            if answer is None:
                answer = await asyncio.to_thread(_stands_still, photo, turn)
            screen = await self._look(answer, kind)
        return screen

    async def _look(self, photo: bytes, kind: str) -> Screen:
        """One image; again when the server says that it was lost, or that nobody had the time."""
        for tries_left in reversed(range(FACE_TRIES_MAX)):
            before = self.agent.screen
            reply = await self.agent.show_face(photo, self.session, kind=kind, liveness=self.liveness)
            if tries_left and reply.error is not None and reply.error.code == "face_lost":
                continue
            self.session = require_ok(reply).session or self.session
            screen = await self._newer_than(before)
            if not tries_left or screen.prompt is None or screen.prompt.code != "face_busy":
                break
        return screen

    async def digits(self, tail: str) -> Screen:
        """Type the last four digits of the phone."""
        return await self._act("digits", {"tail": tail})

    async def enrol(
        self,
        plan: str,
        guarantee: str = "huabei_hold",
        *,
        phone: str | None = None,
        user: str | None = None,
        auth: Mapping[str, str] | None = None,
        shots: Iterable[bytes] = (),
        timeout_s: float = 30.0,
    ) -> Screen:
        """Become a member. `user` authorises by the provider's face token; then the shots that the screen asks for.

        Who is asked to take off a mask and wears none shows the same face again, once. When the shots run out before
        the server is content, the question is cancelled: a member without a face.
        """
        body: dict[str, Any] = {"plan": plan, "guarantee": guarantee}
        if phone is not None:
            body["phone"] = phone
        if user is not None:
            body["auth"] = await self._token(user)
        elif auth is not None:
            body["auth"] = dict(auth)
        before = self.agent.screen
        await self._request("enrol", body)
        seen = before.rev if before is not None and before.session == self.session else 0
        left = iter(shots)
        shot, bare = None, False
        while True:
            screen = await self._shot_or_end(seen, timeout_s)
            if _over(screen):
                return screen
            seen = screen.rev
            same = not bare and screen.prompt is not None and screen.prompt.code == "take_off_mask"
            bare = bare or same
            if not same:
                shot = await asyncio.to_thread(next, left, None)  # a camera takes its time
            if shot is not None:
                await self.agent.show_face(shot, self.session)
            else:
                await self._request("cancel", {})

    async def _shot_or_end(self, seen_rev: int, timeout_s: float) -> Screen:
        return await self.agent.wait_screen(
            lambda s: s.session == self.session and s.rev > seen_rev and (_over(s) or _wants_shot(s)), timeout_s
        )

    async def identify(self, by: str, value: str) -> Screen:
        """A member without a face: by phone, card or code."""
        return await self._act("identify", {"by": by, "value": value})

    # ------------------------------------------------------------ the basket

    async def scan(self, code: str, quantity: int = 1) -> Screen:
        """Scan a barcode; the first scan opens a visit when there is none."""
        return await self._act("scan", {"code": code, "quantity": quantity})

    async def remove(self, line: int) -> Screen:
        """Take a line out."""
        return await self._act("remove", {"line": line})

    async def amount(self, fen: int, *, till_txn: str | None = None) -> Screen:
        """An amount without lines; a parking gate's transaction is the plate."""
        if till_txn is not None and till_txn != self.till_txn:
            self.till_txn, self.session = till_txn, None
        self.till_txn = self.till_txn or str(uuid_utils.uuid7())
        return await self._act("amount", {"till_txn": self.till_txn, "fen": fen})

    async def voucher(self, code: str) -> Screen:
        """A voucher's code."""
        return await self._act("voucher", {"code": code})

    async def age_check(self, result: str) -> Screen:
        """The clerk looked at the customer: ok or refused."""
        return await self._act("age_check", {"result": result})

    async def basket(self, lines: Sequence[Mapping[str, Any]], *, till_txn: str | None = None) -> Screen:
        """The till's whole basket, with the next revision. `till_line` makes lines."""
        if till_txn is not None and till_txn != self.till_txn:
            # Another transaction is another customer: the server opens a visit of its own.
            self.till_txn, self._basket_rev, self.session = till_txn, 0, None
        self.till_txn = self.till_txn or str(uuid_utils.uuid7())
        self._basket_rev += 1
        body = {
            "till_txn": self.till_txn,
            "rev": self._basket_rev,
            "lines": [dict(line) for line in lines],
            "total_fen": sum(int(line["net_fen"]) for line in lines),
        }
        await self._request("basket", body)
        rev = self._basket_rev
        return await self.agent.wait_screen(
            lambda s: s.session == self.session and s.basket_rev == rev, self.screen_timeout_s
        )

    # ------------------------------------------------------------ paying

    async def pay_cash(self, tendered_fen: int | None = None) -> Screen:
        """Pay everything in cash: what is due, rounded down to 10 fen, out of `tendered_fen`."""
        screen = await self._quoted()
        tender: dict[str, Any] = {"kind": "cash", "fen": screen.cash_due_fen}
        if tendered_fen is not None:
            tender["tendered_fen"] = tendered_fen
        return await self._pay(screen, [tender] if screen.due_fen else [])

    async def pay_face(self, user: str) -> Screen:
        """Pay by the provider's own face payment. Our recognition plays no part in it."""
        screen = await self._quoted()
        tenders = []
        if screen.due_fen:
            tenders = [{"kind": "face", "fen": screen.due_fen, "auth": await self._token(user)}]
        return await self._pay(screen, tenders)

    async def pay_code(self, user: str) -> Screen:
        """Pay by the payment code on the customer's phone, scanned by the terminal."""
        screen = await self._quoted()
        auth = {"provider": self._provider_().name, "token": await self._provider_().payment_code(user)}
        return await self._pay(screen, [{"kind": "code", "fen": screen.due_fen, "auth": auth}])

    async def pay_qr(self, user: str) -> Screen:
        """Ask for a collection code, let the customer scan it from the screen, wait for the result page."""
        screen = await self._quoted()
        paying = asyncio.create_task(self._pay(screen, [{"kind": "qr", "fen": screen.due_fen}]))
        try:
            shown = asyncio.create_task(self._collection_code(screen))
            await asyncio.wait({paying, shown}, return_when=asyncio.FIRST_COMPLETED)
            if not shown.done():
                shown.cancel()
                return await paying
            await self._provider_().pay(user, shown.result())
            return await paying
        finally:
            paying.cancel()

    async def confirm(self, tenders: Sequence[Mapping[str, Any]] = (), *, collect: str | None = None) -> Screen:
        """Confirm exactly what is shown; `collect="till"`: benefits are reserved and the till takes the money."""
        screen = await self._quoted()
        body: dict[str, Any] = {"rev": screen.rev, "tenders": [dict(tender) for tender in tenders]}
        if collect is not None:
            body["collect"] = collect
        before = self.agent.screen
        await self._request("confirm", body)
        return await self._newer_than(before)

    async def paid(self, tenders: Sequence[Mapping[str, Any]], *, rev: int | None = None) -> Screen:
        """The till took the money and says so."""
        before = self.screen
        body = {
            "till_txn": self.till_txn,
            "rev": before.rev if rev is None else rev,
            "tenders": [dict(tender) for tender in tenders],
        }
        await self._request("paid", body)
        return await self.agent.wait_screen(
            lambda s: s.session == before.session and s.state is ScreenState.PAID, self.screen_timeout_s
        )

    async def cancel(self) -> Screen:
        """Stop the open question, or the visit."""
        return await self._act("cancel", {})

    async def void(self, receipt: str, timeout_s: float = PAYMENT_TIMEOUT_S) -> ReplyBody:
        """Undo a whole sale of this shift. The reply may be pending; the outcome is then on the screen."""
        return await self._request("void", {"receipt": receipt}, timeout_s=timeout_s)

    async def complain(self, about: str = "other") -> ReplyBody:
        """The customer complains; nothing changes on the screen."""
        return await self._request("complaint", {"about": about})

    # ------------------------------------------------------------ within

    async def _pay(self, screen: Screen, tenders: Sequence[Mapping[str, Any]]) -> Screen:
        await self._request("confirm", {"rev": screen.rev, "tenders": [dict(tender) for tender in tenders]})
        return await self.agent.wait_screen(
            lambda s: s.session == screen.session and s.rev > screen.rev and s.state in _ENDED, PAYMENT_TIMEOUT_S
        )

    async def _quoted(self) -> Screen:
        return await self.agent.wait_screen(
            lambda s: s.session == self.session and s.state is ScreenState.QUOTED, self.screen_timeout_s
        )

    async def _collection_code(self, screen: Screen) -> str:
        shown = await self.agent.wait_screen(
            lambda s: s.session == screen.session and s.prompt is not None and s.prompt.code == "scan_qr",
            PAYMENT_TIMEOUT_S,
        )
        assert shown.prompt is not None, "the predicate asked for it"
        return str(shown.prompt.params["code_url"])

    async def _token(self, user: str) -> dict[str, str]:
        provider = self._provider_()
        return {"provider": provider.name, "token": await provider.face_token(user)}

    def _provider_(self) -> ProviderUsers:
        if self._provider is None:
            raise Refused("no_provider", "this terminal knows no payment provider", "start it with a provider URL")
        return self._provider

    async def _act(self, event_type: str, body: Mapping[str, Any]) -> Screen:
        before = self.agent.screen
        await self._request(event_type, body)
        return await self._newer_than(before)

    async def _request(self, event_type: str, body: Mapping[str, Any], timeout_s: float | None = None) -> ReplyBody:
        patience_s = self.reply_timeout_s if timeout_s is None else timeout_s
        reply = require_ok(await self.agent.request(event_type, body, session=self.session, timeout_s=patience_s))
        if reply.session is not None:
            self.session = reply.session
        return reply

    async def _newer_than(self, before: Screen | None) -> Screen:
        def newer(screen: Screen) -> bool:
            if screen.session != self.session:
                return False
            return before is None or before.session != screen.session or screen.rev > before.rev

        return await self.agent.wait_screen(newer, self.screen_timeout_s)

    def _consent_version(self, purpose: str) -> str:
        for text in self.agent.desired.get("consents", ()):
            if text.get("purpose") == purpose:
                return str(text["version"])
        return "1"


def till_line(line: int, code: str, name: str, unit_fen: int, quantity: int = 1) -> dict[str, Any]:
    """A line of a till's basket at full price."""
    return {
        "line": line,
        "code": code,
        "name": name,
        "quantity": quantity,
        "unit_fen": unit_fen,
        "net_fen": unit_fen * quantity,
        "flags": [],
    }


def _stands_still(photo: bytes, turn: int) -> bytes:
    """What the camera takes next of somebody who does not turn. OpenCV is loaded only when asked for."""
    from models.faces.variations import a_moment_later

    return a_moment_later(photo, turn)


def _over(screen: Screen) -> bool:
    return screen.state is not ScreenState.ENROLLING


def _wants_shot(screen: Screen) -> bool:
    return screen.prompt is not None and screen.prompt.code in _SHOT_PROMPTS
