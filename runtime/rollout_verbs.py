"""`storeops rollout plan|start|status|promote|…`: a chain's rollouts in a running house."""

from __future__ import annotations

import asyncio
import getpass
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from models.domain.errors import Refused
from models.domain.evidence import effect_told
from models.domain.evidence_metrics import metric_of
from models.domain.ids import StoreId
from models.domain.rollout import PersonId, RolloutId
from models.domain.rollout_journal import Entry
from models.domain.rollout_words import in_words
from runtime.progress import language_of_environment
from runtime.rollout_artefacts import Given, artefact_of
from runtime.rollout_files import policy_path, read_policy
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from actors.rollout_effects import RolloutCommand
    from gateway.rollouts import Planned, Shown
    from models.tables.rollouts import Decision
    from runtime.rollout_desk import RolloutDesk

FOLLOW_EVERY_S = 1.0
ENTRIES_SHOWN_MAX = 500
FINDINGS_SHOWN_MAX = 20
FILE_BYTES_MAX = 64 * 1024

Result = TypeVar("Result")
Number = Annotated[str, typer.Argument(help="The rollout's id, as `plan` and `status` show it.")]
As = Annotated[str, typer.Option("--as", help="In whose name; without it: this user's. An author approves nothing.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: it stands in the journal and in the audit.")]
Chain = Annotated[str, typer.Option("--chain", help="Which chain, where a house has several.")]


def _person(name: str) -> PersonId:
    """The same for every way to write a name: full width, with blanks around it, in capitals."""
    plain = unicodedata.normalize("NFKC", name or getpass.getuser()).strip().casefold()
    if not plain or not plain.isprintable():
        raise Refused("bad_text", f"{name!r} is no name", "letters and digits, no control characters")
    return PersonId(f"cli:{plain}")


def _run(data: Path | None, demo: bool, chain: str, work: Callable[[RolloutDesk], Awaitable[Result]]) -> Result:
    """With the desk of the house's chain. Raises Refused `which_chain`."""
    from runtime import administration
    from runtime.rollout_databases import Databases
    from runtime.rollout_desk import RolloutDesk

    plants = administration.running_all(data, demo)
    chains = list(dict.fromkeys(plant.chain for plant in plants))
    chosen = [plant for plant in plants if plant.chain == (chain or chains[0])]
    if not chosen or (not chain and len(chains) > 1):
        raise Refused("which_chain", f"no chain {chain!r}" if chain else "which chain?", f"one of: {', '.join(chains)}")

    async def run() -> Result:
        databases = Databases(chosen)
        await databases.open()
        try:
            return await work(RolloutDesk(databases))
        finally:
            await databases.close()

    return asyncio.run(run())


def plan(
    policy: Annotated[str, typer.Option("--policy", help="A policy of configs/rollouts by its name, or a YAML file.")],
    select: Annotated[
        list[str], typer.Option("--select", help="all, region=, store=, label.NAME=, role=, profile=; !… leaves out.")
    ],
    config: Annotated[str | None, typer.Option("--config", help="A merge patch: JSON, or a file of it.")] = None,
    flag: Annotated[str | None, typer.Option("--flag", help="One setting: NAME=VALUE, as a.b=true.")] = None,
    software: Annotated[
        str | None, typer.Option("--software", help="A recorded version, `dragonfly 2.0.0`; or JSON, or a file of it.")
    ] = None,
    fallback: Annotated[str | None, typer.Option("--fallback", help="The version to go back to, likewise.")] = None,
    family: Annotated[
        str, typer.Option("--family", help="Of the software, else its name: two families do not conflict.")
    ] = "",
    prices: Annotated[Path | None, typer.Option("--prices", help="A price file (CSV): the chain's next book.")] = None,
    plan_files: Annotated[
        list[Path] | None, typer.Option("--plan", help="A plan (YAML), new or its next version; more than once.")
    ] = None,
    book: Annotated[int | None, typer.Option("--book", help="The book in force, or a candidate made since.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Prices that move by more than half are meant so.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same stages.", min=0)] = 0,
    number: Annotated[str | None, typer.Option("--number", help="Repeated, it gives the same draft.")] = None,
    who: As = "",
    chain: Chain = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Decide once who is asked in which stage, show what each stage can see, and keep a draft. Nothing changes yet."""
    from runtime import administration
    from runtime.images import Images
    from runtime.rollout_desk import selected_by

    rules, selector = read_policy(policy_path(policy)), selected_by(select)
    given = Given(config, flag, software, prices, plan_files, book, fallback, family, force)
    given.require_one()

    async def work(desk: RolloutDesk) -> Planned:
        artefact = await artefact_of(given, desk, Images(administration.running_all(data, demo)))
        return await desk.plan(rules, artefact, selector, _person(who), seed=seed, number=number)

    with err.status("resolving"):
        planned = _run(data, demo, chain, work)
    if as_json:
        _print(plan_document(planned), True, "")
    else:
        _show_plan(planned)


def _teller(name: str, help_text: str, *, reason: bool) -> Callable[..., None]:
    def tell(number: str, who: str, why: str, where: tuple[str, Path | None, bool], as_json: bool) -> None:
        from actors import rollout_effects as effects

        by = _person(who)
        if reason and not why.strip():
            raise Refused("bad_text", "the reason says nothing", '--reason "too quiet"')
        told: dict[str, Callable[[], RolloutCommand]] = {
            "start": lambda: effects.Start(by),
            "promote": lambda: effects.Promote(by),
            "approve": lambda: effects.Approve(by),
            "resume": lambda: effects.Resume(by),
            "pause": lambda: effects.Pause(by, why),
            "halt": lambda: effects.Halt(by, why),
            "rollback": lambda: effects.RollBack(by, why),
        }
        chain, data, demo = where
        turn = _run(data, demo, chain, lambda desk: desk.tell(RolloutId(number), told[name]()))
        rollout = turn.rollout
        found = {
            "id": number,
            "state": str(rollout.state),
            "stage": rollout.stage + 1,
            "why": msgspec.to_builtins(turn.why),
        }
        _print(found, as_json, f"{rollout.state}: {turn.why.to(language_of_environment())}")

    def plain(
        number: Number,
        who: As = "",
        chain: Chain = "",
        data: Data = None,
        demo: Demo = False,
        as_json: AsJson = False,
    ) -> None:
        tell(number, who, "", (chain, data, demo), as_json)

    def reasoned(
        number: Number,
        why: Reason,
        who: As = "",
        chain: Chain = "",
        data: Data = None,
        demo: Demo = False,
        as_json: AsJson = False,
    ) -> None:
        tell(number, who, why, (chain, data, demo), as_json)

    verb = reasoned if reason else plain
    verb.__doc__ = help_text
    return verb


def attach(
    number: Number,
    name: Annotated[str, typer.Argument(help="As the policy names it, e.g. privacy_assessment.")],
    reference: Annotated[str, typer.Argument(help="Where the document is kept.")],
    who: As = "",
    chain: Chain = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Attach a document that a stage requires."""
    from actors.rollout_effects import Attach

    told = Attach(_person(who), name, reference)
    turn = _run(data, demo, chain, lambda desk: desk.tell(RolloutId(number), told))
    _print({"id": number, "attachments": dict(turn.rollout.attachments)}, as_json, f"{name}: {reference}")


def supersede(
    number: Number,
    successor: Annotated[str, typer.Option("--with", help="The draft that takes over, as `plan` shows it.")],
    who: As = "",
    chain: Chain = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """End a rollout and start a draft in its place; a rollback of that gives back what stood before the first."""
    old, new = RolloutId(number), RolloutId(successor)
    rollout = _run(data, demo, chain, lambda desk: desk.supersede(old, new, _person(who))).rollout
    taken = sum(mark.inherited for mark in rollout.marks.values())
    found = {"id": successor, "state": str(rollout.state), "supersedes": number, "terminals_taken_over": taken}
    _print(found, as_json, f"{successor}: {rollout.why.to(language_of_environment())} ({taken})")


def status(
    number: Annotated[str | None, typer.Argument(help="One rollout; without it: all of them.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it is over.")] = False,
    chain: Chain = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The ladder: each stage's stores by where they stand, what its gate says and why."""
    if number is None:
        headers = _run(data, demo, chain, lambda desk: desk.headers())
        rows = [msgspec.to_builtins(one) for one in headers]
        lines = [f"{one.id}  {one.state:<14} {one.artefact_key}  {one.author}" for one in headers]
        _print({"rollouts": rows}, as_json, "\n".join(lines) or "no rollout yet: storeops rollout plan")
        return
    rollout = RolloutId(number)

    async def look(desk: RolloutDesk) -> Shown:
        said = ""
        while True:
            shown = await desk.show(rollout)
            line = f"{shown.turn.rollout.state}: {shown.turn.why.to(language_of_environment())}"
            if follow and line != said:
                err.print(line, markup=False, soft_wrap=True)
                said = line
            if not follow or not shown.turn.rollout.state.active:
                return shown
            await asyncio.sleep(FOLLOW_EVERY_S)

    shown = _run(data, demo, chain, look)
    if as_json:
        _print(status_document(shown), True, "")
    else:
        _show_status(shown)


def explain(
    number: Number,
    where: Annotated[str | None, typer.Argument(help="A terminal or a store of it; without it: the rollout.")] = None,
    chain: Chain = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The journal in words: what was decided, on which figures, and why; and where a terminal or a store stands."""
    from runtime.rollout_desk import stores_named

    async def work(desk: RolloutDesk) -> tuple[list[tuple[int, Entry]], dict[str, Any]]:
        if where is None:
            told = {"decisions": await desk.decisions(RolloutId(number)), "looks": await desk.looks(RolloutId(number))}
            return await desk.journal(RolloutId(number), target="", limit=ENTRIES_SHOWN_MAX), told
        rollout = (await desk.show(RolloutId(number))).turn.rollout
        stores = stores_named(rollout)
        terminals = stores.get(StoreId(where)) or tuple(
            one for those in stores.values() for one in those if one == where
        )
        if not terminals:
            raise Refused("not_in_rollout", f"{where!r} is no store or terminal of it", "see `storeops rollout status`")
        found: list[tuple[int, Entry]] = []
        for one in terminals:
            found += await desk.journal(RolloutId(number), target=one, limit=ENTRIES_SHOWN_MAX)
        stands = {one: msgspec.to_builtins(rollout.marks[one]) for one in terminals if one in rollout.marks}  # type: ignore[index]
        return sorted(found, key=lambda pair: pair[0]), {"terminals": stands}

    entries, told = _run(data, demo, chain, work)
    language = language_of_environment()
    lines = [f"{n:>6}  {entry.at:%m-%d %H:%M:%S}  {in_words(entry).to(language)}" for n, entry in entries]
    lines += [decided_in_words(one, language) for one in told.get("decisions", ())]
    document = {
        "id": number,
        "entries": [{"n": n, "words": in_words(entry).en, **msgspec.to_builtins(entry)} for n, entry in entries],
        **msgspec.to_builtins(told),
    }
    _print(document, as_json, "\n".join(lines) or "nothing happened there yet")


def decided_in_words(decision: Decision, language: str) -> str:
    """What a gate said, with the figures that it saw: stores by where they stood, and the evidence of its look."""
    counts = {
        name: count
        for name, count in msgspec.to_builtins(decision.counts).items()
        if count and not isinstance(count, bool)
    }
    figures = ", ".join(f"{name} {count}" for name, count in counts.items())
    said = f"{decision.at:%m-%d %H:%M:%S}  {decision.stage + 1}. {decision.gate.way}: {decision.gate.why.to(language)}"
    lines = [said, f"  {figures}"]
    if (found := decision.verdict) is not None:
        lines.append(f"  {found.look}/{found.looks} {found.outcome}, sha256 {found.inputs_sha256[:12]}")
        if found.metric is not None and found.estimate is not None:
            spec = metric_of(found.metric)
            shown = [effect_told(spec, one) for one in (found.estimate, found.low, found.high, found.mde)]
            lines.append("  {}: {} [{}, {}], mde {}".format(spec.name.to(language), *shown))
        lines += [
            f"  {metric_of(one.metric).name.to(language)} {one.store or '*'}: {one.before:.3g} -> {one.after:.3g}"
            f" {metric_of(one.metric).unit}, p {one.p_adjusted:.2g}" + (" !" if one.unsafe else "")
            for one in found.findings[:FINDINGS_SHOWN_MAX]
        ]
    return "\n".join(lines)


# ---------------------------------------------------------------- shown


def plan_document(planned: Planned) -> dict[str, Any]:
    """A draft as `--json` prints it."""
    rollout = planned.rollout
    return {
        "id": rollout.id,
        "state": str(rollout.state),
        "artefact": msgspec.to_builtins(rollout.artefact),
        "policy": rollout.policy.name,
        "plan_sha256": rollout.plan.sha256,
        "seed": rollout.plan.seed,
        "conflict": planned.conflict,
        "stages": [
            {
                "name": stage.name,
                "stores": [store.store for store in stage.stores],
                "terminals": sum(len(store.targets) for store in stage.stores),
                "strata": _strata(stage.stores),
                "outlook": None if outlook is None else msgspec.to_builtins(outlook.outlook),
                "controls": 0 if outlook is None else len(outlook.controls),
            }
            for stage, outlook in zip(rollout.plan.stages, planned.outlooks, strict=True)
        ],
    }


def _strata(stores: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for store in stores:
        found[store.stratum] = found.get(store.stratum, 0) + 1
    return found


def _show_plan(planned: Planned) -> None:
    out, document = Console(highlight=False), plan_document(planned)
    zh = language_of_environment() == "zh"
    table = Table(box=None, pad_edge=False)
    for heading in ("阶段", "门店", "终端", "分层") if zh else ("stage", "stores", "terminals", "strata"):
        table.add_column(heading)
    for stage in document["stages"]:
        strata = ", ".join(f"{name or '-'} {count}" for name, count in stage["strata"].items())
        table.add_row(stage["name"], str(len(stage["stores"])), str(stage["terminals"]), strata)
    out.print(table)
    for stage, outlook in zip(planned.rollout.plan.stages, planned.outlooks, strict=True):
        if outlook is not None and outlook.outlook is not None:
            why = outlook.outlook.why.to(language_of_environment())
            out.print(f"{stage.name}: {why}", markup=False, soft_wrap=True)
    out.print(f"sha256 {document['plan_sha256']}", markup=False, soft_wrap=True)
    if planned.conflict is not None:
        out.print(f"! {planned.conflict} changes the same in some of these stores", markup=False, soft_wrap=True)
    out.print(f"storeops rollout start {document['id']}", markup=False, soft_wrap=True)


def status_document(shown: Shown) -> dict[str, Any]:
    """A rollout as `--json` prints it."""
    turn, rollout = shown.turn, shown.turn.rollout
    return {
        **msgspec.to_builtins(shown.header),
        "stage": rollout.stage + 1,
        "halted_at": None if rollout.halted_at is None else rollout.halted_at + 1,
        "why": msgspec.to_builtins(turn.why),
        "attachments": dict(rollout.attachments),
        "stages": [
            {
                "name": stage.name,
                "stores": len(stage.stores),
                "state": str(mark.state),
                **_view(turn.stages[n] if n < len(turn.stages) else None),
            }
            for n, (stage, mark) in enumerate(zip(rollout.plan.stages, rollout.stages, strict=True))
        ],
        "decisions": len(shown.decisions),
    }


def _view(view: Any) -> Mapping[str, Any]:
    if view is None:
        return {"counts": None, "gate": None}
    found: dict[str, Any] = msgspec.to_builtins(view)
    return found


def _show_status(shown: Shown) -> None:
    out, language = Console(highlight=False), language_of_environment()
    turn, rollout = shown.turn, shown.turn.rollout
    zh = language == "zh"
    table = Table(box=None, pad_edge=False)
    headings = ("阶段", "状态", "门店", "成功", "在途", "失败", "离线") if zh else (
        "stage", "state", "stores", "succeeded", "under way", "failed", "offline"
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading)
    for n, (stage, mark) in enumerate(zip(rollout.plan.stages, rollout.stages, strict=True)):
        counts = turn.stages[n].counts if n < len(turn.stages) else None
        figures = (
            ("", "", "", "")
            if counts is None
            else (counts.succeeded, counts.queued + counts.in_progress + counts.soaking, counts.errors, counts.offline)
        )
        table.add_row(stage.name, str(mark.state), str(len(stage.stores)), *(str(one) for one in figures))
    out.print(table)
    for stage, view in zip(rollout.plan.stages, turn.stages, strict=False):
        out.print(f"{stage.name}: {view.gate.why.to(language)}", markup=False, soft_wrap=True)
    out.print(f"{rollout.state}: {turn.why.to(language)}", markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Put the verbs into `storeops rollout`."""
    app.command("plan")(plan)
    for name, reason, text in (
        ("start", False, "Open the first stage."),
        ("promote", False, "Approve the open stage's gate and open the next one at once; not by the author."),
        ("approve", False, "Approve what the open stage's gate shows; not by the author."),
        ("pause", True, "Ask nobody else; what is under way goes on."),
        ("resume", False, "Go on after a pause."),
        ("halt", True, "Stop: nothing more is asked of anybody."),
        ("rollback", True, "Give every terminal back what it had, the last asked first; also after completion."),
    ):
        app.command(name)(_teller(name, text, reason=reason))
    app.command("attach")(attach)
    app.command("supersede")(supersede)
    app.command("status")(status)
    app.command("explain")(explain)
