"""Sentences in both languages, side by side: one can't be forgotten for the other."""

from typing import NamedTuple


class Text(NamedTuple):
    en: str
    zh: str

    def fill(self, **values: object) -> "Text":
        return Text(self.en.format(**values), self.zh.format(**values))

    def said(self, language: str) -> str:
        return self.zh if language == "zh" else self.en


RIGHT_FIRST = Text(
    "not sent: a right callback gets no yes, and without one nothing else can be told; mend that first",
    "未发送：正确的回调未获成功应答，其余无从判断；请先修正该项",
)
AFTER = Text("not sent: it needs {names}, which failed; mend that first", "未发送：依赖 {names}，该项未通过；请先修正")
NO_PROOF = Text(
    "not sent: the operator's settings have nothing of the kind for this message type",
    "未发送：该商户此消息类型的设置中没有此项",
)
UNTOLD = Text(
    "an answer would tell only at an operator that knows its duplicates and refuses other content",
    "只有商户能识别重复单并拒绝内容不同的同号单时，应答才能说明问题",
)
NO_ANSWER = Text(
    "{count} got no answer at all ({reason}); a refusal is an answer too",
    "{count} 次完全没有应答（{reason}）；拒绝也应有应答",
)
ABSENT = Text("{key}: answered with a yes and not booked", "{key}：已答成功但未入账")
BOOKED = Text("{key}: is booked, and must not be", "{key}：不应入账却已入账")
TWICE = Text("{key}: booked {count} times", "{key}：入账 {count} 次")
DIFFERS = Text(
    "{key}: {field} was sent as {sent} and booked as {booked}", "{key}：{field} 发送为 {sent}，入账为 {booked}"
)
NOT_LOOKED = Text("--received could not be read: {told}", "--received 无法读取：{told}")
YES = Text("yes", "成功")
NO = Text("no", "拒绝")
SILENCE = Text("no answer", "无应答")

RESULTS = {
    "pass": Text("pass", "通过"),
    "fail": Text("FAIL", "不通过"),
    "warning": Text("warning", "警告"),
    "not_seen": Text("not seen", "外部不可见"),
    "not_applicable": Text("not applicable", "不适用"),
}
HEADINGS = {
    "type": Text("type", "消息类型"),
    "check": Text("check", "检查项"),
    "result": Text("result", "结果"),
    "expected": Text("expected", "预期"),
    "came": Text("came", "实际"),
    "why": Text("why it matters", "为何重要"),
    "mend": Text("what to change", "如何修改"),
    "orders": Text("test orders", "测试单号"),
}
TITLE = Text("Conformance of {operator}", "{operator} 对接验收报告")
PASSED = Text("Nothing failed.", "没有不通过的检查项。")
FAILED = Text("{count} check(s) failed.", "{count} 项检查不通过。")
SENT = Text(
    "{requests} requests for {orders} test orders went to {url} on {at} (UTC).",
    "{at}（UTC）向 {url} 发送了 {orders} 个测试单，共 {requests} 次请求。",
)
RECOGNISED = Text(
    "Every test order's number begins with {prefix} and has 19 digits; the player is {uid}.",
    "所有测试单号均以 {prefix} 开头、共 19 位；玩家为 {uid}。",
)
LEGEND = Text(
    "Pass, fail and warning say what the answers prove. Not seen: the answers were right, and what is behind them "
    "can't be seen from outside, so look into your books for the order numbers given; or the check needs another that "
    "failed, and says which. Not applicable: nothing of the kind (a signature, a token) is agreed on.",
    "“通过”“不通过”“警告”均以应答为据。“外部不可见”：应答无误，但内部是否正确无法从外部判断，请按所列单号核对账目；"
    "或该项依赖的检查未通过，原因见该行。“不适用”：双方未约定该项（如签名、令牌）。",
)
