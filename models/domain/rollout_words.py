"""A rollout's journal and its terminals in words, zh and en of equal rank."""

from __future__ import annotations

import json
from typing import Any

from models.domain.plan_reader import Text
from models.domain.rollout import ArtefactKind, Reason, RolloutState, StageState, TargetState
from models.domain.rollout_journal import Attached, Entry, Mark, RolloutMoved, StageMoved, TargetMoved
from models.domain.rollout_part import BOOKS, leaf_paths

SETTINGS_NAMED_MAX = 3
VALUE_CHARACTERS_MAX = 40

ROLLOUT_STATES: dict[RolloutState, Text] = {
    RolloutState.DRAFT: Text("草稿", "draft"),
    RolloutState.RUNNING: Text("进行中", "running"),
    RolloutState.PAUSED: Text("已暂停", "paused"),
    RolloutState.HALTED: Text("已停止", "halted"),
    RolloutState.ROLLING_BACK: Text("回退中", "rolling back"),
    RolloutState.ROLLBACK_STUCK: Text("回退受阻", "rollback stuck"),
    RolloutState.ROLLED_BACK: Text("已回退", "rolled back"),
    RolloutState.COMPLETED: Text("已完成", "completed"),
    RolloutState.TAILING: Text("已完成，新店跟进", "complete, new stores follow"),
    RolloutState.SUPERSEDED: Text("已被取代", "superseded"),
}
NEXT: dict[RolloutState, Text] = {
    RolloutState.DRAFT: Text(
        "核对阶段与门店后启动；启动之前什么都不会改变。", "Look at the stages, then start it; nothing changes before."
    ),
    RolloutState.PAUSED: Text(
        "不再要求新的门店；查明原因后继续，或回退。",
        "Nobody else is asked. Resume it, or roll it back.",
    ),
    RolloutState.HALTED: Text(
        "不再要求任何门店。回退会恢复原来的内容；改好之后新建一个发布。",
        "Nothing more is asked of anybody. A rollback gives back what was there; mend it, then plan a new one.",
    ),
    RolloutState.ROLLING_BACK: Text(
        "无须操作：终端逐台恢复；无应答的终端恢复联系后再恢复。",
        "Nothing to do: terminals get back what they had; those that are silent, when they answer.",
    ),
    RolloutState.ROLLBACK_STUCK: Text(
        "查看下方“失败”与“超时”的终端，到店处理后再次回退。",
        "See the terminals below that failed or timed out, have them looked at, then roll back again.",
    ),
    RolloutState.ROLLED_BACK: Text(
        "各终端已恢复；改好之后新建一个发布。", "All is as it was; plan a new one with what was mended."
    ),
    RolloutState.COMPLETED: Text("无须操作；需要时仍可回退。", "Nothing to do; it can still be rolled back."),
    RolloutState.TAILING: Text(
        "无须操作：之后开的门店会跟进；需要时仍可回退。",
        "Nothing to do: stores that open later follow; it can still be rolled back.",
    ),
    RolloutState.SUPERSEDED: Text("由取代它的发布继续。", "The rollout that took over goes on with it."),
}
"""What a person does next; of a running one its gate says it."""
STAGE_STATES: dict[StageState, Text] = {
    StageState.WAITING: Text("未开放", "not open yet"),
    StageState.OPEN: Text("开放", "open"),
    StageState.AWAITS_APPROVAL: Text("等待批准", "waits for approval"),
    StageState.PASSED: Text("已通过", "passed"),
    StageState.HALTED: Text("已停止", "halted"),
}
TARGET_STATES: dict[TargetState, Text] = {
    TargetState.QUEUED: Text("排队，尚未下发", "queued: nothing was asked of it"),
    TargetState.OFFLINE: Text("离线，尚未下发", "offline: nothing was asked of it"),
    TargetState.PREFETCHING: Text("正在下载", "fetches the release"),
    TargetState.ACTIVATING: Text("等待终端报告新版本", "waits for the terminal to report the change"),
    TargetState.SOAKING: Text("已报告新版本，观察中", "reports the change and soaks"),
    TargetState.SUCCEEDED: Text("成功", "succeeded"),
    TargetState.FAILED: Text("失败", "failed"),
    TargetState.TIMED_OUT: Text("超时", "timed out"),
    TargetState.LYING: Text("谎报", "lies"),
    TargetState.ROLLING_BACK: Text("正在恢复原来的内容", "gets back what it had"),
    TargetState.ROLLED_BACK: Text("已恢复原来的内容", "has what it had before"),
    TargetState.SUPERSEDED: Text("已由别的变更接管", "somebody else changed this since"),
}
REASONS: dict[Reason, Text] = {
    Reason.NONE: Text("", ""),
    Reason.QUEUE_DEADLINE: Text("排队超过期限", "its turn did not come before the queue's deadline"),
    Reason.WINDOW_MISSED: Text("错过了变更时段", "the window closed before it could start"),
    Reason.PREFETCH_DEADLINE: Text("下载超过期限", "the download took longer than it may"),
    Reason.ACTIVATE_DEADLINE: Text("变更超过期限", "the change took longer than it may"),
    Reason.SOAK_DEADLINE: Text("未能在期限内连续正常", "it was not well for long enough before the deadline"),
    Reason.REFUSED_BY_TERMINAL: Text("终端拒绝", "the terminal refused"),
    Reason.SAID_DONE: Text("答复完成，却仍报告旧版本", "it said done and still reports the old version"),
    Reason.OLD_BOOT: Text("未重启就报告新版本", "it reports the new version without a new boot"),
    Reason.WRONG_HASH: Text("报告的配置与下发的不同", "it reports our generation with another configuration"),
    Reason.FLAPPING: Text("反复退回", "it fell back again and again"),
    Reason.UNHEALTHY: Text("自报不正常", "it is not well"),
    Reason.REBOOTED: Text("又重启了", "it booted again"),
    Reason.WENT_OFFLINE: Text("变更后失去联系", "it went silent after it was asked"),
    Reason.FELL_BACK: Text("又报告旧版本", "it reports the old version again"),
    Reason.ROLLBACK_DEADLINE: Text("未能在期限内恢复", "it is not back before the rollback's deadline"),
    Reason.RETIRED: Text("已停用", "out of service"),
    Reason.CHANGED_ELSEWHERE: Text("别处改动了同一内容", "the same was changed elsewhere"),
    Reason.BUSY: Text("正在服务顾客", "it serves somebody"),
    Reason.NOT_FETCHED: Text("终端答复尚未下载", "it answers that nothing is fetched"),
    Reason.NOTHING_TO_ACTIVATE: Text("终端答复无可启用", "it answers that there is nothing to start"),
    Reason.OTHER_VERSION: Text("终端的文档要的是别的版本", "its document wants another version"),
    Reason.NO_ANSWER: Text("尚无答复", "it has not answered yet"),
}

_CODES = frozenset(str(one) for one in Reason)


def in_short(kind: str, version: str, payload: str) -> Text:
    """What an artefact changes, in a line: its settings and their values, a release, a version of the book."""
    if kind in BOOKS:
        return Text(f"第 {version} 版", f"version {version}")
    if kind == ArtefactKind.SOFTWARE:
        return Text(version, version)
    patch: Any = json.loads(payload)
    said: list[str] = []
    for path in leaf_paths(patch):
        value = patch
        for name in path:
            value = value[name]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        said.append(
            f"{'.'.join(path)} = {text[:VALUE_CHARACTERS_MAX]}{'…' if len(text) > VALUE_CHARACTERS_MAX else ''}"
        )
    line, more = ", ".join(said[:SETTINGS_NAMED_MAX]), len(said) - SETTINGS_NAMED_MAX
    return Text(f"{line}，另 {more} 项", f"{line} and {more} more") if more > 0 else Text(line, line)


def standing(mark: Mark) -> Text:
    """Where a terminal stands and why, in a line."""
    state, reason = TARGET_STATES[mark.state], REASONS[mark.reason]
    if mark.reason.put_off and mark.state is TargetState.PREFETCHING:
        state = Text("已下载，等待下一次机会", "lies ready and waits for its next turn")
    if not reason.en:
        return state
    said = Text("", "")
    if mark.state.error and mark.answer:
        known = REASONS.get(Reason(mark.answer)) if mark.answer in _CODES else None
        said = (
            Text(f"（{mark.answer}）", f" ({mark.answer})")
            if known is None
            else Text(f"（{known.zh}）", f" ({known.en})")
        )
    return Text(f"{state.zh}：{reason.zh}{said.zh}", f"{state.en}: {reason.en}{said.en}")


def in_words(entry: Entry) -> Text:
    """One journal entry as a line."""
    match entry:
        case RolloutMoved():
            return _said(ROLLOUT_STATES[entry.state], entry.why)
        case StageMoved():
            number, mark = entry.stage + 1, entry.mark
            if mark.approved_by is not None:
                return Text(
                    f"{mark.approved_by} 批准第 {number} 阶段", f"stage {number} approved by {mark.approved_by}"
                )
            state = STAGE_STATES[mark.state]
            return _said(Text(f"第 {number} 阶段{state.zh}", f"stage {number} {state.en}"), mark.why)
        case TargetMoved():
            said = standing(entry.mark)
            return Text(f"{entry.target} {said.zh}", f"{entry.target} {said.en}")
        case Attached():
            return Text(
                f"{entry.by} 附上 {entry.name}：{entry.reference}",
                f"{entry.by} attached {entry.name}: {entry.reference}",
            )
        case _:
            return Text(f"新店 {entry.store.store} 跟进", f"new store {entry.store.store} follows")


def _said(what: Text, why: Text) -> Text:
    return Text(f"{what.zh}：{why.zh}", f"{what.en}: {why.en}") if why.en else what
