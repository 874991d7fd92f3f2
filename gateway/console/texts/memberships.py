"""What may be done with a membership: buttons of its detail, and the question before each."""

MEMBERSHIPS: dict[str, tuple[str, str]] = {
    "membership_act.title": ("操作", "Actions"),
    "membership_act.member": ("会员退出", "Cancel for the member"),
    "membership_act.merchant": ("商家终止", "Cancel by the merchant"),
    "membership_act.suspend": ("暂停使用", "Suspend"),
    "membership_act.resume": ("恢复使用", "Resume"),
    "membership_act.renew": ("到期续期", "Renew"),
    "membership_act.stop": ("不再续期", "Do not renew"),
    "membership_act.change": ("变更方案", "Change the plan"),
    "membership_act.freeze": ("重新冻结", "Freeze again"),
    "membership_act.plan": ("新方案", "New plan"),
    "membership_act.confirm": ("确认", "Confirm"),
    "membership_act.close": ("返回", "Back"),
    "membership_act.done": ("已完成", "Done"),
    "membership_act.scan": ("请会员扫码授权冻结", "The member scans this code to authorise the hold"),
    "membership_act.renews": ("到期后续期", "It renews when it ends"),
    "membership_act.pays": ("会员应付", "The member pays"),
    "membership_act.given_up": ("减免", "Given up"),
    "membership_act.frozen": ("新冻结", "Newly frozen"),
    "membership_act.released": ("解冻", "Released"),
}
