"""Draws docs/images/architecture-{zh,en}.svg: the path of one face, in both languages from one drawing.

Run it after a change: `python scripts/architecture.py`.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH, HEIGHT = 1080, 560
INK, SOFT, GREEN, PALE, PAPER, LINE = "#16211e", "#5a6662", "#0f6b5c", "#e2f0ec", "#ffffff", "#c9d3cf"
FONT = "system-ui, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"

Words = tuple[str, str]
"""Chinese, English."""

# x, y, width, height, folder, title, lines
BOXES: list[tuple[int, int, int, int, str, Words, list[Words]]] = [
    (
        20,
        150,
        150,
        150,
        "devices/",
        ("终端", "terminals"),
        [
            ("刷脸终端、收银机", "face terminal, till"),
            ("收到回复前一直保留", "keeps each event"),
            ("", "until its reply"),
        ],
    ),
    (
        240,
        150,
        120,
        150,
        "MQTT 5",
        ("消息代理", "broker"),
        [("mosquitto", "mosquitto"), ("QoS 1，手动确认", "QoS 1,"), ("", "manual ack")],
    ),
    (410, 90, 300, 270, "runtime/host + actors/", ("门店主机（Ray actor）", "store host (Ray actor)"), []),
    (
        800,
        90,
        260,
        96,
        "actors/face_worker + models/faces",
        ("人脸识别（Ray actor）", "face worker (Ray actor)"),
        [("检测 → 对齐 → 特征 → 检索 → 判定", "detect → align → embed"), ("", "→ search → decide")],
    ),
    (
        800,
        216,
        260,
        80,
        "gateway/providers",
        ("支付方", "payment provider"),
        [("冻结、收款、查询、退款；按编号去重", "every call under a number of ours")],
    ),
    (
        800,
        326,
        260,
        80,
        "actors/settlement",
        ("结算（Ray actor）", "settlement (Ray actor)"),
        [("每个（连锁、区域）一个，随营业时钟", "one per (chain, region)")],
    ),
    (
        410,
        440,
        300,
        90,
        "models/tables + models/domain",
        ("PostgreSQL：唯一的事实", "PostgreSQL: the only record"),
        [("收件箱、状态、定时器、发件箱、账本", "inbox, states, timers, outbox, ledger")],
    ),
    (
        20,
        440,
        340,
        90,
        "gateway/",
        ("网关与控制台", "gateway and console"),
        [
            ("API、门店墙（SSE）、会员扣费解释、浏览器里的终端", "API, live wall, a charge explained,"),
            ("", "a terminal in the browser"),
        ],
    ),
]

STEPS: list[Words] = [
    ("门口解码一次，先查重", "decoded at the door, deduplicated"),
    ("纯函数的一步：新状态 + 效果", "a pure turn: new state + effects"),
    ("一次提交，先核对任期", "one commit, epoch checked first"),
    ("再发布回复与屏幕，再确认", "then reply and screen, then ack"),
    ("然后才向外提问", "and only then ask the outside"),
]

# points, number, label at (x, y)
ARROWS: list[tuple[list[tuple[int, int]], Words | None, tuple[int, int]]] = [
    ([(170, 205), (240, 205)], ("① 人脸", "① face"), (180, 195)),
    ([(360, 205), (410, 205)], None, (0, 0)),
    ([(710, 125), (800, 125)], ("⑤ 提问", "⑤ ask"), (724, 115)),
    ([(800, 162), (710, 162)], ("⑥ 新消息", "⑥ answer"), (718, 180)),
    ([(710, 256), (800, 256)], ("支付", "pay"), (735, 247)),
    ([(560, 360), (560, 440)], ("③ 提交", "③ commit"), (570, 405)),
    ([(410, 262), (360, 262)], None, (0, 0)),
    ([(240, 262), (170, 262)], ("④ 屏幕", "④ screen"), (176, 282)),
    ([(360, 485), (410, 485)], ("读", "read"), (370, 476)),
    ([(460, 360), (460, 400), (280, 400), (280, 440)], ("变化", "deltas"), (330, 392)),
    ([(800, 366), (760, 366), (760, 485), (710, 485)], ("入账", "post"), (768, 440)),
]


def text(x: int, y: int, words: str, size: int = 14, fill: str = INK, weight: int = 400) -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" font-weight="{weight}">{escape(words)}</text>'


def draw(language: int) -> str:
    """The picture in one language: 0 Chinese, 1 English."""
    title = ("一张脸走过的路：先持久，后可见", "The path of one face: durable before visible")[language]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{GREEN}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#f5f5f3"/>',
        text(20, 42, title, 22, INK, 700),
        text(
            20,
            66,
            ("① 到 ⑥；绿色为数据流向，等宽字为目录", "① to ⑥; green: the way of the data; in mono: the folder")[
                language
            ],
            13,
            SOFT,
        ),
    ]
    for points, label, (x, y) in ARROWS:
        path = " ".join(f"{px},{py}" for px, py in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{GREEN}" stroke-width="2" marker-end="url(#tip)"/>')
        if label is not None:
            out.append(text(x, y, label[language], 12, GREEN, 600))
    for x, y, width, height, folder, name, lines in BOXES:
        out.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="{PAPER}" stroke="{LINE}"/>')
        out.append(
            f'<text x="{x + 14}" y="{y + 22}" font-size="11" fill="{SOFT}" '
            f'font-family="ui-monospace, monospace">{escape(folder)}</text>'
        )
        out.append(text(x + 14, y + 44, name[language], 16, INK, 700))
        shown = [line[language] for line in lines if line[language]]
        out += [text(x + 14, y + 66 + 19 * n, line, 12, SOFT) for n, line in enumerate(shown)]
    for n, step in enumerate(STEPS):
        y = 150 + 41 * n
        out.append(f'<rect x="424" y="{y}" width="272" height="33" rx="7" fill="{PALE}"/>')
        out.append(text(436, y + 21, f"{('②', '②', '③', '④', '⑤')[n]} {step[language]}", 13))
    return "\n".join([*out, "</svg>\n"])


def main() -> None:
    """Write both."""
    for number, language in enumerate(("zh", "en")):
        (IMAGES / f"architecture-{language}.svg").write_text(draw(number), encoding="utf-8")


if __name__ == "__main__":
    main()
