"""What faults call WeChat's methods, which have paths instead of names."""

from __future__ import annotations

CODEPAY, NATIVE, QUERY = "wechat.codepay", "wechat.native", "wechat.query"
CLOSE, REVERSE = "wechat.close", "wechat.reverse"
REFUND, REFUND_QUERY = "wechat.refund", "wechat.refund.query"
CREATE, READ = "wechat.payscore.create", "wechat.payscore.query"
COMPLETE, CANCEL = "wechat.payscore.complete", "wechat.payscore.cancel"
BILL = "wechat.tradebill"
NAMES = frozenset({CODEPAY, NATIVE, QUERY, CLOSE, REVERSE, REFUND, REFUND_QUERY, CREATE, READ, COMPLETE, CANCEL, BILL})
