"""The checks, as a table: what is sent, what is expected, why it matters, what to change; in their order."""

from collections.abc import Sequence

from dispatcher.certify.check import Check, Flaw, Result, Step
from dispatcher.certify.orders import Content
from dispatcher.certify.text import Text

_BOTH, _NOTICE, _SETTLE = ("notice", "settle"), ("notice",), ("settle",)
# The same number again with other content, and rightly: whoever booked what it refused knows the number already.
_THEN = "the same order sent rightly afterwards gets a yes"
_THEN_ZH = "随后正确发送的同号单应获成功应答"
_ONCE = Text(
    "whether it was booked once can't be seen from outside: look for the number in your books, or compare lists with "
    "`dispatcher reconcile`",
    "是否只入账一次无法从外部看到：请按单号核对账目，或用 `dispatcher reconcile` 对账",
)
_EXACT = Text(
    "which digits are in your books can't be seen from outside: look at the order there",
    "账目中的数字无法从外部看到：请查看该单",
)


def _after(order: str) -> Step:
    return Step(order, Content.OTHER, tells=True)


CHECKS: Sequence[Check] = (
    Check(
        "right",
        _BOTH,
        (Step("right"),),
        Text("a right callback", "正确的回调"),
        Text("a yes", "成功应答"),
        Text("it is what every spin sends", "每一局游戏发送的都是它"),
        Text(
            "see what came: the token, the key's reading (`dispatcher verify`), the answer's form (status, code)",
            "请看实际应答：令牌、密钥读法（`dispatcher verify`）、应答格式（状态码、返回码）",
        ),
    ),
    Check(
        "again",
        _BOTH,
        (Step("again"), Step("again")),
        Text("the same again", "重复发送同一单"),
        Text("a yes both times", "两次均为成功应答"),
        Text(
            "after a lost answer we send again: a no keeps us sending until the order is a dead letter, a second "
            "booking is money paid twice",
            "应答丢失后会重发：若被拒绝，订单最终成为死信；若再次入账，则重复派奖",
        ),
        Text(
            "look the number up under a unique index before booking, and answer what is booked already with a yes",
            "入账前按唯一索引查单号，已入账者仍答成功",
        ),
        unseen=_ONCE,
    ),
    Check(
        "other_content",
        _BOTH,
        (Step("other"), Step("other", Content.OTHER, yes=False)),
        Text("the same number, other content", "同一单号，内容不同"),
        Text("a yes, then a no", "先成功，后拒绝"),
        Text(
            "a yes says that another amount is booked under this number, and nobody notices",
            "答成功意味着该单号下另一金额已入账，且无人察觉",
        ),
        Text(
            "compare what comes with what is booked under the number; where it differs, refuse and keep the first",
            "与已入账内容比对，不同则拒绝，以第一次为准",
        ),
    ),
    Check(
        "refreshed_ts",
        _SETTLE,
        (Step("ts"), Step("ts", flaw=Flaw.LATER)),
        Text("the same again with a newer ts", "重复发送，ts 已更新"),
        Text("a yes both times", "两次均为成功应答"),
        Text("`ts` is the time of the attempt: every retry has a new one", "`ts` 是发送时间，每次重发都不同"),
        Text("leave `ts` out of what you compare and hash", "比对及校验时不要包含 `ts`"),
        needs=("again",),
        unseen=_ONCE,
    ),
    Check(
        "two_at_once",
        _BOTH,
        tuple(
            step
            for order in ("race-a", "race-b", "race-c")
            for step in (Step(order, at_once=2, level=Result.WARNING), Step(order))
        ),
        Text("the same twice at once", "同一单同时到达两次"),
        Text("a yes to both", "两次均为成功应答"),
        Text(
            "after a timeout the first request may still be at work when the second comes: look-up and booking in two "
            "steps book twice",
            "超时重发时前一请求可能仍在处理：先查后记分两步会重复入账",
        ),
        Text(
            "let a unique index decide within the transaction that books; whoever loses answers as for a duplicate",
            "在入账事务内由唯一索引裁决，落败者按重复单应答成功",
        ),
        needs=("again",),
        unseen=_ONCE,
    ),
    Check(
        "wrong_token",
        _BOTH,
        (
            Step("token", flaw=Flaw.WRONG_TOKEN, yes=False),
            Step("token", flaw=Flaw.NO_TOKEN, yes=False),
            _after("token"),
        ),
        Text("a wrong token, and none", "令牌错误及缺失"),
        Text(f"a no to both; {_THEN}", f"两次均拒绝；{_THEN_ZH}"),
        Text("whoever finds the URL could book wins", "任何知道地址的人都能记入奖金"),
        Text(
            "compare the token before anything else, and answer 401 before you read the body",
            "最先校验令牌，不符即答 401，不读取正文",
        ),
    ),
    Check(
        "wrong_signature",
        _BOTH,
        (Step("signature", flaw=Flaw.WRONG_SIGNATURE, yes=False), _after("signature")),
        Text("a wrong signature", "签名错误"),
        Text(f"a no; {_THEN}", f"拒绝；{_THEN_ZH}"),
        Text("the signature is there so that nobody alters a body", "签名用于防止正文被篡改"),
        Text(
            "verify webhook-signature over id, timestamp and the exact bytes of the body before you read it",
            "读取正文前，按 id、timestamp 与正文原始字节校验 webhook-signature",
        ),
    ),
    Check(
        "tampered",
        _NOTICE,
        (
            Step("tampered", flaw=Flaw.TAMPERED, yes=False),
            Step("tampered", flaw=Flaw.CUT, yes=False),
            _after("tampered"),
        ),
        Text("altered data, and data cut short", "data 被篡改及被截断"),
        Text(f"a no to both; {_THEN}", f"两次均拒绝；{_THEN_ZH}"),
        Text("what does not decrypt says nothing of what was won", "无法解密的内容不能说明输赢"),
        Text(
            "book what `data` says once decrypted; where padding, JSON or a field is wrong, refuse",
            "以解密后的 `data` 入账；填充、JSON 或字段有误即拒绝",
        ),
    ),
    Check(
        "anothers_data",
        _NOTICE,
        (Step("anothers", flaw=Flaw.ANOTHERS, yes=False, level=Result.WARNING),),
        Text("the data of another order", "data 属于另一单"),
        Text("a no", "拒绝"),
        Text(
            "an old `data` under a new number would be booked with the old amounts",
            "旧 `data` 配新单号会以旧金额入账",
        ),
        Text("compare order_no inside `data` with the one outside", "比对 `data` 内外的 order_no"),
    ),
    Check(
        "missing_field",
        _BOTH,
        (
            Step("missing", flaw=Flaw.NO_AMOUNT, yes=False),
            Step("missing", flaw=Flaw.NO_PLAYER, yes=False),
            _after("missing"),
        ),
        Text("a field is missing (the win; the player)", "缺少字段（派奖金额；玩家）"),
        Text(f"a no to both; {_THEN}", f"两次均拒绝；{_THEN_ZH}"),
        Text("a yes says that something is booked that nobody said", "答成功意味着记入了无人提供的内容"),
        Text(
            'refuse what lacks a field of the contract; never put 0 or "" for it',
            "缺少约定字段即拒绝，不以 0 或空值代替",
        ),
    ),
    Check(
        "unknown_field",
        _BOTH,
        (Step("unknown", flaw=Flaw.UNKNOWN),),
        Text("a field too many", "多出未知字段"),
        Text("a yes", "成功应答"),
        Text(
            "a later version may send more; a refusal would stop every callback that day",
            "日后可能新增字段，拒绝会使全部回调中断",
        ),
        Text("read the fields you know and ignore the others", "只读取已知字段，忽略其余"),
    ),
    Check(
        "large_amount",
        _BOTH,
        (
            Step("large", Content.LARGE, level=Result.WARNING),
            Step("large", Content.LARGE_NEXT, yes=False, tells=True),
        ),
        Text("a huge amount, exact to the last digit", "超大金额，精确到最后一位"),
        Text(
            "a yes to 99999999999999.99; a no to 99999999999999.98 under the same number",
            "99999999999999.99 成功；同号 99999999999999.98 拒绝",
        ),
        Text(
            "as floats these two are one number: what is read so is not exact, at any size",
            "以浮点读取时两者相同：以浮点读取的金额在任何大小上都不精确",
        ),
        Text(
            "read amounts as decimals from the JSON text (BigDecimal, Decimal, bcmath), keep them as DECIMAL(18,4)",
            "从 JSON 文本按十进制读取金额（BigDecimal、Decimal、bcmath），以 DECIMAL(18,4) 存储",
        ),
        unseen=_EXACT,
        told=True,
    ),
    Check(
        "four_decimals",
        _BOTH,
        (
            Step("fine", Content.FINE),
            Step("fine", Content.FINE_NEXT, yes=False, tells=True),
        ),
        Text("four decimal places", "四位小数"),
        Text("a yes to 2.3456; a no to 2.3457 under the same number", "2.3456 成功；同号 2.3457 拒绝"),
        Text("who keeps two places is a little off with every spin", "只保留两位小数，每局都会有误差"),
        Text("keep four places, in code and in the database's columns", "代码与数据库列均保留四位小数"),
        unseen=_EXACT,
        told=True,
    ),
    Check(
        "long_number",
        _BOTH,
        (Step("long"), Step("long+1", Content.OTHER)),
        Text("two order numbers of 19 digits that differ in the last", "两个 19 位单号，仅末位不同"),
        Text("a yes to both", "两次均为成功应答"),
        Text(
            "as floats (JavaScript's numbers, a spreadsheet) both are one: the second win is taken for a duplicate",
            "以浮点读取（JavaScript 数字、电子表格）时两者相同：第二单会被当作重复单",
        ),
        Text("treat order numbers as text everywhere, or as 64-bit integers", "单号一律按文本或 64 位整数处理"),
        unseen=Text(
            "whether both are booked can't be seen from outside: look for the two numbers in your books",
            "两单是否均已入账无法从外部看到：请按两个单号核对账目",
        ),
        told=True,
    ),
    Check(
        "non_ascii",
        _BOTH,
        (
            Step("foreign", Content.FOREIGN),
            Step("foreign", Content.FOREIGN_LOST, yes=False, tells=True),
        ),
        Text("text that is not ASCII", "非 ASCII 文本"),
        Text("a yes; a no to the same with question marks instead", "成功；以问号代替的同号单拒绝"),
        Text("names of games are Chinese; a lost letter is a support case", "游戏名称为中文，乱码会成为客诉"),
        Text(
            "read the body as UTF-8 whatever the machine's locale; in MySQL use utf8mb4",
            "无论系统区域设置，一律按 UTF-8 读取；MySQL 使用 utf8mb4",
        ),
        unseen=Text(
            "which letters are in your books can't be seen from outside: look at the order there",
            "账目中的文字无法从外部看到：请查看该单",
        ),
    ),
    Check(
        "slow",
        _BOTH,
        (Step("slow", flaw=Flaw.SLOW),),
        Text("a slow connection", "慢速连接"),
        Text("a yes", "成功应答"),
        Text(
            "on a bad line head and body come in pieces, over seconds",
            "线路不佳时请求头与正文会在数秒内分段到达",
        ),
        Text(
            "read until Content-Length is there, and give a request at least 10 s to arrive",
            "按 Content-Length 读满，并至少给请求 10 秒到达时间",
        ),
    ),
    Check(
        "late",
        _SETTLE,
        (Step("right"),),
        Text("a late duplicate", "迟到的重复单"),
        Text("a yes, after all the others", "在其他订单之后仍为成功应答"),
        Text("a settle is repeated for up to 3 hours, by then with a new ts", "结算会重发长达 3 小时，届时 ts 已更新"),
        Text(
            "keep booked numbers for good, not in a cache or a window of time",
            "永久保存已入账单号，不要只放缓存或时间窗",
        ),
        needs=("again", "refreshed_ts"),
        unseen=_ONCE,
    ),
)
# What has to hold before a no to other content tells anything.
TELLING = ("again", "other_content")


def checks_of(kind: str) -> list[Check]:
    return [check for check in CHECKS if kind in check.types]
