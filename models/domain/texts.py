"""What terminals say: prompts and refusals by code, Chinese and English of equal rank.

The codes are a closed list of the terminal protocol's published schema: add, never rename.
"""

from __future__ import annotations

from models.domain.screen import Prompt, ReplyError

_PROMPTS: dict[str, tuple[str, str]] = {
    "welcome": ("欢迎光临", "Welcome"),
    "ask_consent": ("请确认是否同意刷脸识别", "May we recognise your face?"),
    "look_at_camera": ("请正视摄像头（{shot}/{of}）", "Please look at the camera ({shot} of {of})"),
    "ask_digits": ("请输入手机号后四位", "Please enter the last four digits of your phone"),
    "digits_elsewhere": ("请在旁边的屏幕输入手机号后四位", "Please enter the four digits at the screen beside"),
    "come_closer": ("请靠近一点", "Please come a little closer"),
    "more_light": ("光线不足，请正对灯光", "More light, please face the lamp"),
    "look_straight": ("请抬头正视摄像头", "Please look straight at the camera"),
    "hold_still": ("请站稳片刻", "Please hold still for a moment"),
    "less_light": ("光线太强，请避开逆光", "Too bright, please turn away from the light"),
    "take_off_mask": ("请摘下口罩，或输入手机号", "Please take off the mask, or use your phone number"),
    "take_off_glasses": ("请摘下墨镜", "Please take off the sunglasses"),
    "turn_head": ("请慢慢向{direction}转头", "Please turn your head slowly to the {direction}"),
    "several_faces": ("请一位顾客面对摄像头", "One person at a time, please"),
    "not_recognised": ("未能识别，可继续结账", "Not recognised; you can go on without it"),
    "face_lost": ("请再看一次摄像头", "Please look again"),
    "face_busy": (
        "刷脸繁忙：请用手机号，或出示付款码、现金付款",
        "Face is busy: use your phone number, or pay by code or cash",
    ),
    "face_off": (
        "刷脸识别已暂停：请用手机号、会员卡或会员码",
        "Face recognition is switched off: use your phone number, card or code",
    ),
    "face_erased": ("您的人脸已删除，会员照常使用", "Your face is erased; your membership goes on"),
    "scan_qr": ("请扫码支付", "Please scan to pay"),
    "scan_to_agree": ("请扫码并在手机上同意", "Please scan and agree on your phone"),
    "authorise_on_phone": ("请在手机上授权", "Please authorise on your phone"),
    "pay_failed": ("支付未成功，请换一种方式", "Payment failed, please try another way"),
    "not_paid": ("未支付；如已扣款将原路退回", "Not paid; if money was taken it comes back"),
    "price_changed": ("优惠有变化，请重新确认", "The price has changed, please confirm again"),
    "benefits_off": ("会员优惠暂停，请按新价格确认", "Member benefits are paused, please confirm the new price"),
    "member_ready": ("会员已开通：先享优惠，到期结算", "You are a member: enjoy first, settle later"),
    "enrol_failed": ("未能开通会员，可继续结账", "Membership could not be opened; you can go on"),
    "thank_you": ("谢谢惠顾", "Thank you"),
    "voided": ("已整单撤销", "The sale is undone"),
    "returned": (
        "已退货：退款 {back} 元，其中现金 {cash} 元",
        "Goods returned: {back} goes back, {cash} of it in cash",
    ),
    "age_check": ("请店员确认顾客已满 18 岁", "A clerk must see that the customer is 18 or older"),
    "no_clerk": ("此处没有店员：请取出限制商品", "No clerk here: the restricted goods must be taken out"),
    "age_refused": ("未满 18 岁：请取出限制商品", "Under 18: the restricted goods must be taken out"),
    "voucher_added": ("已用券：{name}，优惠 {saves} 元", "Voucher taken: {name}, {saves} off"),
    "voucher_waits": ("券已录入：{name}（{why}）", "Voucher entered: {name} ({why})"),
    "digits_wrong": ("号码不符，请再试一次", "Those digits do not fit; please try again"),
    "collect_at_till": ("请在收银机收款", "Please collect at the till"),
}

_REFUSALS: dict[str, tuple[str, str, str, str]] = {
    "no_session": ("没有进行中的顾客", "No customer is open", "发送 session.open", "send session.open"),
    "session_gone": ("该次服务已结束", "That visit has ended", "开始新的服务", "open a new session"),
    "lane_busy": ("正在付款", "A payment is running", "等待付款结束或取消", "wait for it or cancel"),
    "question_open": ("上一个问题未完成", "A question is still open", "稍候再试", "wait for its answer"),
    "consent_missing": ("尚未取得同意", "Consent is missing", "先征求同意", "ask for the consent first"),
    "consent_outdated": ("同意书版本已更新", "The consent text has changed", "显示当前版本", "show the current text"),
    "already_identified": ("已识别", "Already recognised", "继续结账", "go on"),
    "no_digits_asked": ("未要求输入号码", "No digits were asked for", "先刷脸", "show the face first"),
    "bad_digits": ("应为四位数字", "Four digits are needed", "重新输入", "enter them again"),
    "digits_exhausted": ("次数已用完", "Too many attempts", "不使用会员继续", "go on without membership"),
    "face_lost": ("图像已失效", "The image is gone", "再看一次摄像头", "look again"),
    "bad_image": (
        "图像无法读取",
        "The image cannot be read",
        "发送完整的 JPEG：8 位，彩色或灰度，不超过 400 万像素",
        "send a whole JPEG of 8 bits, colour or grey, 4 megapixels at most",
    ),
    "face_off": (
        "刷脸识别已暂停",
        "Face recognition is switched off",
        "用手机号、会员卡或会员码识别",
        "identify by phone, card or code",
    ),
    "benefits_off": ("会员优惠已暂停", "Member benefits are switched off", "按屏幕价格付款", "pay the screen's price"),
    "offers_off": ("优惠推荐已暂停", "Offers are switched off", "继续结账", "go on without it"),
    "unknown_plan": ("没有该方案", "There is no such plan", "选择屏幕上的方案", "choose one from the screen"),
    "guarantee_unavailable": (
        "不支持该担保方式",
        "That guarantee is not offered",
        "选择屏幕上的担保方式",
        "choose one from the screen",
    ),
    "already_member": ("已是会员", "Already a member", "直接使用优惠", "use the benefits"),
    "unknown_item": ("没有该商品", "Unknown item", "检查条码或人工定价", "check the code"),
    "code_misread": ("条码校验位不符", "A check digit does not fit", "重新扫码", "scan it again"),
    "code_unreadable": ("条码无法解析", "The code cannot be read", "重新扫码", "scan it again"),
    "item_expired": ("商品已过期", "The item is past its date", "取出该商品", "take it out"),
    "weight_missing": ("称重商品缺少重量", "Weighed goods need a label", "先称重打签", "weigh it first"),
    "points_short": ("积分不足", "Not enough points", "减少积分或不用积分", "use fewer, or none"),
    "bad_quantity": ("数量不对", "The quantity is not possible", "1 至 99", "1 to 99"),
    "basket_full": ("商品行数过多", "The basket is full", "分两次结账", "split the basket"),
    "no_such_line": ("没有这一行", "There is no such line", "查看屏幕", "look at the screen"),
    "basket_is_tills": ("购物篮由收银机管理", "The till owns the basket", "发送 basket", "send basket"),
    "basket_is_ours": ("购物篮由系统管理", "The system owns the basket", "发送 scan", "send scan"),
    "stale_rev": ("屏幕已更新", "The screen has changed", "按新屏幕重新确认", "confirm the new screen"),
    "total_mismatch": ("合计与明细不符", "The total differs from the lines", "重新发送", "send it again"),
    "nothing_to_pay": ("没有商品", "Nothing to pay", "先扫商品", "scan something first"),
    "tender_unsupported": ("不支持该付款方式", "That tender is not supported", "换一种方式", "use another"),
    "tender_mismatch": ("付款金额不符", "The tenders do not add up", "按屏幕金额付款", "pay what the screen says"),
    "line_invalid": ("商品行无效", "A line has no possible price", "检查数量和价格", "check quantity and price"),
    "tender_invalid": ("付款方式无效", "A tender is not possible", "发送实际付款", "send what was paid"),
    "tender_short": ("收款不足", "Less was handed over than the tender says", "补足差额", "ask for the rest"),
    "change_not_cash": ("只有现金可以找零", "Only cash gives change", "不要发送 tendered_fen", "omit tendered_fen"),
    "coupon_mismatch": ("优惠券金额不符", "The coupons do not equal the discount", "按屏幕优惠", "use the screen's"),
    "enrol_too_soon": ("暂时不能再次开通", "It is too soon to enrol again", "以后再试", "try again later"),
    "token_missing": ("缺少支付令牌", "The provider's token is missing", "重新刷脸支付", "ask the provider again"),
    "no_such_receipt": ("没有该小票", "There is no such receipt", "检查小票号", "check the number"),
    "already_voided": ("该小票已撤销", "Already undone", "无需操作", "nothing to do"),
    "wrong_day": ("只能撤销当班小票", "Only this shift's sales can be undone", "改用退货", "use return"),
    "refund_failed": ("退款未成功", "The refund failed", "稍后重试", "try again later"),
    "not_now": ("现在不能执行", "That is not possible now", "查看屏幕可用操作", "see the actions on screen"),
    "benefit_gone": ("优惠已用完或过期", "The benefit is used up or expired", "按新价格确认", "confirm the new price"),
    "pay_failed": ("支付未成功", "The payment failed", "换一种方式", "try another way"),
    "already_processed": ("已处理", "Already processed", "无需重发", "do not send it again"),
    "id_conflict": ("编号冲突", "The id was used for another message", "换新编号", "use a fresh id"),
    "enrol_refused": ("未能开通", "It could not be opened", "可继续结账", "go on without it"),
    "bad_phone": ("手机号不对", "That is no phone number", "重新输入", "enter it again"),
    "identify_exhausted": ("查找次数已用完", "Too many look-ups", "不使用会员继续", "go on without membership"),
    "amount_only": ("本店只输入金额", "This store takes amounts only", "发送 amount", "send amount"),
    "unknown_voucher": ("没有该券", "There is no such voucher", "检查券码", "check its code"),
    "voucher_used": ("该券已用完", "The voucher is used up", "按新价格确认", "confirm the new price"),
    "voucher_entered": ("该券已录入", "The voucher is entered already", "继续结账", "go on"),
    "voucher_too_many": ("券太多", "Too many vouchers for one sale", "继续结账", "go on"),
    "voucher_not_yet": ("该券尚未生效", "The voucher is not valid yet", "以后再用", "use it later"),
    "voucher_over": ("该券已过期", "The voucher has expired", "继续结账", "go on without it"),
    "voucher_not_here": ("该券不适用于本店", "The voucher is not for this store", "继续结账", "go on without it"),
    "voucher_not_now": ("该券此时段不可用", "The voucher is not for this hour", "换个时段再用", "use it at its hours"),
    "voucher_members": ("该券限会员使用", "The voucher is for members", "先识别会员", "recognise the member first"),
    "unknown_offer": ("没有该优惠", "There is no such offer", "选择屏幕上的优惠", "choose one from the screen"),
    "not_claimable": ("该方案需要开通", "A plan is entered, not claimed", "发送 enrol", "send enrol"),
    "no_age_check": ("无需确认年龄", "No age is to be checked", "继续结账", "go on"),
    "age_check_missing": ("尚未确认年龄", "The age has not been checked", "请店员确认", "ask the clerk"),
    "clerk_missing": ("需要店员操作", "Only a clerk can do that", "先登录店员", "send the clerk's id"),
    "no_membership": ("没有有效会员", "There is no membership", "先识别会员", "recognise a member first"),
    "unknown_lease": ("没有该预留", "There is no such lease", "无需归还", "nothing to give back"),
    "return_exceeds": ("退货数量超过所购", "More than was sold", "检查数量", "check the quantity"),
    "not_returnable": ("代收业务不能退货", "Sold for somebody else: not returnable", "联系服务商", "ask its provider"),
    "permission_missing": (
        "没有在本店批准现金退款的权限（return.cash）",
        "No permission return.cash at this store",
        "请有权限的店长批准",
        "let somebody approve who has it",
    ),
    "already_returned": ("该小票已有退货", "Goods of it came back already", "改用退货", "use return"),
    "member_missing": ("此付款方式限会员本人", "Only a member can pay so", "先识别会员", "recognise the member first"),
    "second_factor_missing": (
        "需要第二重验证",
        "A second factor is missing",
        "刷脸或出示会员码后，输入手机号后四位",
        "show face or member code, then enter the last four digits",
    ),
    "balance_short": ("余额不足", "The balance is too small", "充值或换一种方式", "top it up, or use another tender"),
    "no_open_shift": (
        "收银抽屉未开班",
        "No shift is open at this drawer",
        "先开班再收押金",
        "open a shift, then take the deposit",
    ),
    "agreement_missing": ("未签约代扣", "No withholding agreement", "先签约或换方式", "sign one, or pay otherwise"),
    "payment_limit": ("超过单笔限额", "Above the limit for one payment", "换一种方式", "use another tender"),
    "day_limit": ("超过当日限额", "Above the limit for one day", "换一种方式", "use another tender"),
    "internal_error": ("系统错误", "Something went wrong", "联系管理员", "ask an operator"),
    "too_fast": ("发送过快", "Too many events at once", "放慢发送速度", "send more slowly"),
    "busy": ("本店待处理事项过多", "Too much is under way in this store", "10 秒后重试", "try again in 10 s"),
    "host_full": ("系统繁忙", "The system is busy", "5 秒后重试", "try again in 5 s"),
}


_WORDS_ZH: dict[str | int, str] = {"left": "左", "right": "右"}
"""Parameters that are codes, as they are said; in English they are said as they are."""


def prompt(code: str, language: str, **params: str | int) -> Prompt:
    """The prompt of that code in the terminal's language. Raises KeyError for a code that is not on the list."""
    zh, en = _PROMPTS[code]
    said = {name: _WORDS_ZH.get(value, value) for name, value in params.items()} if language == "zh" else params
    return Prompt(code, dict(params), (zh if language == "zh" else en).format(**said))


def refusal(code: str, language: str, message: str = "", do: str = "") -> ReplyError:
    """What a refused event is told; `message` and `do` serve codes that come from another list."""
    if code not in _REFUSALS:
        return ReplyError(code, message or code, do or ("联系管理员" if language == "zh" else "ask an operator"))
    zh, en, do_zh, do_en = _REFUSALS[code]
    return ReplyError(code, zh, do_zh) if language == "zh" else ReplyError(code, en, do_en)


def prompt_codes() -> frozenset[str]:
    """The closed list, for the published schema."""
    return frozenset(_PROMPTS)


def refusal_codes() -> frozenset[str]:
    """The closed list, for the published schema."""
    return frozenset(_REFUSALS)
