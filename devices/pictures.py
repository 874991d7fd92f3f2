"""Screen documents as small tables on a console: one for each display of a device, and the till that sells alone."""

from __future__ import annotations

from rich.table import Table

from devices.keys import word
from devices.offline import OfflineTill
from devices.profiles import TerminalProfile
from devices.profiles.fitting import views
from models.domain.screen import Screen, ScreenState


def pictures(screen: Screen, profile: TerminalProfile, language: str) -> list[Table]:
    """One table for each display that the device has."""
    shown = views(screen, profile)
    return [picture(one, profile, language, word(reader, language)) for reader, one in shown.items()]


def picture(screen: Screen, profile: TerminalProfile, language: str, reader: str) -> Table:
    """The screen document as one display shows it."""
    who = f" {screen.member.name}" if screen.member else ""
    table = _table(f"{reader}: {screen.state}{who} (rev {screen.rev})", language)
    for line in screen.lines:
        table.add_row(f"{line.name} {line.why}".strip(), str(line.quantity), str(line.net_fen))
    if screen.discount_fen:
        table.add_row(word("discount", language), "", str(-screen.discount_fen))
    table.add_row(word("due", language), "", str(screen.due_fen), style="bold")
    for offer in screen.offers:
        table.add_row(f"+ {offer.plan} ({offer.id})", "", str(-offer.saves_now_fen), style="dim")
    for suggestion in screen.suggestions:
        table.add_row(f"? {suggestion.name}: {suggestion.why}", "", "", style="dim")
    if screen.prompt is not None:
        code_url = screen.prompt.params.get("code_url", "")
        table.caption = f"{screen.prompt.text or screen.prompt.code} {code_url}".strip()
    if screen.receipt is not None:
        table.add_row(f"{word('receipt', language)} {screen.receipt.no}", "", "")
        if profile.has_printer:
            table.add_row(screen.receipt.text, "", "", style="dim")
    if profile.opens_on_paid and screen.state is ScreenState.PAID:
        table.add_row(f"[green]{word('opens', language)}[/]", "", "")
    return table


def basket_picture(till: OfflineTill, language: str) -> Table:
    """The till that sells alone."""
    quote = till.quote()
    table = _table(f"{word('offline', language)} ({till.sales}: {till.taken_fen})", language)
    for line in till.lines:
        table.add_row(line.item.name, str(line.quantity), str(line.net_fen))
    for given in quote.benefits:
        table.add_row(till.prices.benefits[given.benefit].name, "", str(-given.fen))
    table.add_row(word("due", language), "", str(quote.due_fen), style="bold")
    held = " ".join(f"{one.id[:8]}:{one.member or one.membership[:8]} {one.uses - one.used}" for one in till.leases)
    if held:
        table.caption = f"{word('leases', language)}: {held}"
    return table


def _table(title: str, language: str) -> Table:
    table = Table(title=title, title_justify="left", min_width=48)
    table.add_column(word("item", language))
    table.add_column(word("count", language), justify="right")
    table.add_column(word("fen", language), justify="right")
    return table
