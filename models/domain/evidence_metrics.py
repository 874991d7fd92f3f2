"""The metrics a stage may be judged by: each can be computed from tables that are there, per store and business day.

`models.tables.evidence` holds the statement of each; a test keeps the two lists the same.
"""

from __future__ import annotations

from models.domain.evidence import Direction, MetricId, MetricKind, MetricSpec
from models.domain.plan_reader import Text

_SALES = Text("当日未撤销的销售", "sales of that business date that were not undone")


def _per_1_000_sales(
    name: str, zh: str, en: str, definition_zh: str, definition_en: str, sources: tuple[str, ...]
) -> MetricSpec:
    """A count of something bad, or good, over the sales of the day."""
    return MetricSpec(
        MetricId(name),
        MetricKind.COUNT,
        Direction.DOWN,
        "per 1,000 sales",
        1_000,
        Text(zh, en),
        Text(f"{definition_zh}，除以{_SALES.zh}", f"{definition_en}, over {_SALES.en}"),
        (*sources, "sale"),
        relative=False,
    )


METRICS: dict[MetricId, MetricSpec] = {
    one.id: one
    for one in (
        MetricSpec(
            MetricId("payment_failure_rate"),
            MetricKind.RATE,
            Direction.DOWN,
            "%",
            100,
            Text("支付失败率", "payment failures"),
            Text(
                "payment_failed 事件数，除以该事件数与当日未撤销的销售之和",
                "incidents payment_failed, over those and the sales of that business date that were not undone",
            ),
            ("incident", "sale"),
            relative=False,
        ),
        _per_1_000_sales(
            "unclear_money",
            "款项不明",
            "unclear money",
            "cancel_unclear、payment_parked、refund_unknown 事件数",
            "incidents cancel_unclear, payment_parked and refund_unknown",
            ("incident",),
        ),
        _per_1_000_sales(
            "errors",
            "程序错误",
            "errors",
            "处理时出错而保留的消息数（死信）",
            "messages whose turn raised an error (dead letters)",
            ("dead_letter",),
        ),
        _per_1_000_sales(
            "terminal_faults",
            "终端故障",
            "terminal faults",
            "session_takeover、seq_gap、clock_skew 事件数",
            "incidents session_takeover, seq_gap and clock_skew",
            ("incident",),
        ),
        _per_1_000_sales("complaints", "投诉", "complaints", "complaint 事件数", "incidents complaint", ("incident",)),
        _per_1_000_sales(
            "face_refusals",
            "拒绝刷脸",
            "faces refused",
            "顾客拒绝刷脸（face_refused 事件）数",
            "incidents face_refused: a customer did not want the camera",
            ("incident",),
        ),
        MetricSpec(
            MetricId("face_unrecognised_rate"),
            MetricKind.RATE,
            Direction.DOWN,
            "%",
            100,
            Text("刷脸未识别率", "faces not recognised"),
            Text(
                "结果为 not_recognised 的识别，除以当日全部识别（保留期满后按 UTC 日汇总）",
                "decisions not_recognised, over all of that day (those past their retention by the day in UTC)",
            ),
            ("face_decision", "face_decision_day"),
            relative=False,
        ),
        MetricSpec(
            MetricId("payment_answer_ms"),
            MetricKind.MEAN,
            Direction.DOWN,
            "ms",
            1,
            Text("支付应答时间", "payment answer time"),
            Text(
                "支付请求从提交到有应答的毫秒数之和，除以请求数",
                "milliseconds from an ask of the payment port to its answer, over such asks",
            ),
            ("outbox",),
            relative=True,
        ),
        MetricSpec(
            MetricId("sales_per_day"),
            MetricKind.COUNT,
            Direction.UP,
            "per store and day",
            1,
            Text("日销售笔数", "sales per day"),
            Text(
                f"{_SALES.zh}数，除以营业日数；没有销售的日子也计入",
                f"{_SALES.en}, over the business dates since the store opened; a date without a sale counts too",
            ),
            ("sale", "store"),
            relative=False,
        ),
        MetricSpec(
            MetricId("takings_per_day"),
            MetricKind.MEAN,
            Direction.UP,
            "fen per store and day",
            1,
            Text("日销售额", "takings per day"),
            Text(
                "当日未撤销的销售应付额之和（分），除以有销售的营业日数",
                "fen due of the sales of that business date that were not undone, over business dates with a sale",
            ),
            ("sale",),
            relative=True,
        ),
        MetricSpec(
            MetricId("basket_fen"),
            MetricKind.MEAN,
            Direction.UP,
            "fen per sale",
            1,
            Text("客单价", "average basket"),
            Text(f"应付额之和（分），除以{_SALES.zh}数", f"fen due, over {_SALES.en}"),
            ("sale",),
            relative=True,
        ),
        MetricSpec(
            MetricId("enrolments"),
            MetricKind.COUNT,
            Direction.UP,
            "per 1,000 sales",
            1_000,
            Text("入会", "enrolments"),
            Text(
                f"当日在本店开通的会员（首期）数，除以{_SALES.zh}数",
                f"memberships (first period) opened in the store that day, over {_SALES.en}",
            ),
            ("membership", "sale"),
            relative=False,
        ),
    )
}
"""By id. Add, never change what an id means: registered rules name them."""

DEFAULT_SAFETY = tuple(
    MetricId(one)
    for one in (
        "errors",
        "payment_failure_rate",
        "unclear_money",
        "complaints",
        "face_refusals",
        "terminal_faults",
        "payment_answer_ms",
        "sales_per_day",
    )
)
"""What every stage watches unless its rule says otherwise."""


def metric_of(name: str) -> MetricSpec:
    """The metric of that id. Raises ValueError, naming the known ones."""
    spec = METRICS.get(MetricId(name))
    if spec is None:
        raise ValueError(f"no metric {name!r}: one of {', '.join(METRICS)}")
    return spec
