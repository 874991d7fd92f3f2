"""The pages' texts; Chinese and English are of equal rank."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "language": "English",
        "title": "Payment provider simulator",
        "intro": "Stands for the provider's system and its customers' phones. Play money; its own books.",
        "books": "Books",
        "captured": "taken",
        "refunded": "given back",
        "net": "net",
        "held": "held",
        "orders": "Orders",
        "holds": "Holds",
        "customers": "Customers",
        "number": "Merchant's number",
        "what": "What",
        "amount": "Amount",
        "state": "State",
        "customer": "Customer",
        "back": "Given back",
        "remaining": "Remaining",
        "balance": "Balance",
        "huabei": "Huabei used / held / limit",
        "open": "open",
        "pay": "Pay",
        "authorise": "Authorise",
        "as": "as customer",
        "face_token": "Face token",
        "payment_code": "Payment code",
        "give_code": "Give a code (once, two minutes)",
        "none": "none yet",
        "over": "Nothing to do here any more.",
        "overview": "All orders",
        "said": "Result",
    },
    "zh": {
        "language": "中文",
        "title": "支付机构模拟器",
        "intro": "代表支付机构的系统和顾客的手机。资金为模拟，账目独立。",
        "books": "账目",
        "captured": "已收",
        "refunded": "已退",
        "net": "净额",
        "held": "冻结中",
        "orders": "订单",
        "holds": "冻结",
        "customers": "顾客",
        "number": "商户单号",
        "what": "内容",
        "amount": "金额",
        "state": "状态",
        "customer": "顾客",
        "back": "已退",
        "remaining": "剩余",
        "balance": "余额",
        "huabei": "花呗 已用 / 冻结 / 额度",
        "open": "打开",
        "pay": "付款",
        "authorise": "授权",
        "as": "顾客身份",
        "face_token": "刷脸令牌",
        "payment_code": "付款码",
        "give_code": "出示一个码（一次有效，两分钟）",
        "none": "暂无",
        "over": "此处已无可操作。",
        "overview": "全部订单",
        "said": "结果",
    },
}


def language(asked: str | None, accept_language: str) -> str:
    """The language asked for, else the browser's first one, else English."""
    if asked in TEXTS:
        return asked
    return "zh" if accept_language.strip().lower().startswith("zh") else "en"
