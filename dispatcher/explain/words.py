"""What the story of a delivery is told in: every sentence in English and in Chinese, by the same names."""

from collections.abc import Mapping
from typing import NamedTuple

from dispatcher.ground.policy import Reason, Trigger


class Tongue(NamedTuple):
    """One language. The braces in a text are filled in by `explain`; what comes from outside is quoted by then."""

    triggers: Mapping[Trigger, str]
    reasons: Mapping[Reason, str]
    said: Mapping[str, str]
    join: str
    quote: str


ENGLISH = Tongue(
    triggers={
        Trigger.FIRST: "the first",
        Trigger.RETRY: "by the schedule, after a failure",
        Trigger.REPLAY: "ordered by hand",
    },
    reasons={
        Reason.DNS: "The operator's host name had no address, so nothing was sent.",
        Reason.CONNECT_REFUSED: "The operator's server could not be reached: the connection was refused, or there is no"
        " way to it. Nothing was sent.",
        Reason.CONNECT_TIMEOUT: "No connection to the operator's server came about in time. Nothing was sent.",
        Reason.TLS: "No trusted encrypted connection to the operator's server came about. Nothing was sent.",
        Reason.BLOCKED_ADDRESS: "The operator's host name leads to an address that may not be called, so nothing was"
        " sent.",
        Reason.WRITE_ERROR: "The connection broke before the whole request was sent.",
        Reason.READ_TIMEOUT: "The request was sent, but no whole answer came in time.",
        Reason.RESET: "The request was sent, but the connection broke before the answer was whole.",
        Reason.INTERRUPTED: "Our own process stopped in the middle of it; whether the request was sent, nobody knows.",
        Reason.REDIRECT: "The operator answered with a redirect, which is never followed.",
        Reason.HTTP_STATUS: "The operator answered with a status that is no success.",
        Reason.BODY_TOO_LARGE: "The operator's answer was larger than what is read, so it counts as no success.",
        Reason.BODY_NOT_JSON: "The operator's answer is not the JSON that was agreed, so it counts as no success.",
        Reason.BODY_FIELD: "The operator's answer does not say success.",
        Reason.CONFIG: "With the operator's settings no request can be made of this event. Nothing was sent.",
    },
    said={
        "accepted": "{type} {key} for operator {operator}, player {uid}, was accepted at {at}.",
        "amounts": "It tells: {amounts}.",
        "attempt": "Attempt {n} ({trigger}) began at {at}.",
        "took": "It took {seconds} s.",
        "took_ms": "It took {ms} ms.",
        "success": "The operator answered that it has booked it.",
        "http": "HTTP status: {status}.",
        "code": "Code: {code}.",
        "words": "Its words: {words}.",
        "doubt": "The operator may have booked it all the same.",
        "late": "This result came when the attempt had been given up already; it is recorded, and decided nothing.",
        "replay": "At {at} {actor} ordered that it be sent again.",
        "resolve": "At {at} {actor} closed it by hand.",
        "by_hand": "At {at} {actor} did this by hand: {verb}.",
        "note": "Note: {note}.",
        "booked_yes": "Booked: yes. The operator has confirmed it.",
        "booked_yes_late": "Booked: yes. The operator has confirmed it, though in an answer that came too late to count"
        " here.",
        "booked_maybe": "Booked: that is open. In attempt {attempts} the request may have reached the operator, and"
        " no answer came back that settles it. Only the operator's own books can tell.",
        "booked_maybe_now": "Booked: that is open. An attempt is under way, and its answer is not here yet.",
        "booked_no_untried": "Booked: no. Nothing was sent yet.",
        "booked_no_unsent": "Booked: no. No whole request has reached the operator.",
        "booked_no_refused": "Booked: no, by the operator's own answers: none of them says success. In case of doubt"
        " the operator's books decide.",
        "next_delivered": "Nothing more is sent.",
        "next_sending": "An attempt is under way now.",
        "next_dead": "It is given up: nothing more is sent by itself. A person can have it sent again, or close it by"
        " hand.",
        "next_dead_final": "The operator's code says that it is final, so it was not tried again.",
        "next_ask": "Ask the operator for this order before it is closed. If it is sent again, the operator must know"
        " it by its number, and not book it twice.",
        "next_close": "Since the operator has confirmed it, it is not to be sent again, and can be closed by hand.",
        "next_resolved": "It is closed: nothing more is sent.",
        "next_parked": "It waits behind an earlier event of its line, and is sent once that one has left it.",
        "next_gone": "The operator has no settings in force: nothing is sent until somebody gives it some.",
        "next_paused": "The operator is paused since {at}: nothing is sent until somebody resumes it. The pause uses up"
        " no attempt.",
        "next_held": "The operator failed so often that it is held since {at}: one delivery is tried now and then, and"
        " all go on once one succeeds. The hold uses up no attempt.",
        "put_off": "A fault on our own side put it off, which uses up no attempt. {why}",
        "next_due": "The next attempt is due at {at}.",
        "next_overdue": "The next attempt is due since {at}, and is made as soon as there is a free place.",
        "next_last": "If that one fails, it is given up, and waits for a person.",
        "next_end": "If that one and all after it fail, it is given up at {at}, and waits for a person.",
        "as_of": "As of {at}; all times in {zone}.",
    },
    join=" ",
    quote='"{}"',
)

CHINESE = Tongue(
    triggers={
        Trigger.FIRST: "首次",
        Trigger.RETRY: "失败后按计划重试",
        Trigger.REPLAY: "人工重发",
    },
    reasons={
        Reason.DNS: "商户域名无法解析，请求未发出。",
        Reason.CONNECT_REFUSED: "无法连接商户服务器（被拒绝或不可达），请求未发出。",
        Reason.CONNECT_TIMEOUT: "连接商户服务器超时，请求未发出。",
        Reason.TLS: "无法与商户服务器建立可信的加密连接，请求未发出。",
        Reason.BLOCKED_ADDRESS: "商户域名指向不允许访问的地址，请求未发出。",
        Reason.WRITE_ERROR: "请求尚未发完，连接已断开。",
        Reason.READ_TIMEOUT: "请求已发出，但未在时限内收到完整应答。",
        Reason.RESET: "请求已发出，但应答未收完连接已断开。",
        Reason.INTERRUPTED: "发送途中我方进程中断，请求是否已发出无从得知。",
        Reason.REDIRECT: "商户返回重定向，按约定不跟随。",
        Reason.HTTP_STATUS: "商户返回的状态码不表示成功。",
        Reason.BODY_TOO_LARGE: "商户的应答超过读取上限，不视为成功。",
        Reason.BODY_NOT_JSON: "商户的应答不是约定的 JSON 对象，不视为成功。",
        Reason.BODY_FIELD: "商户的应答未表示成功。",
        Reason.CONFIG: "以商户当前的设置无法生成请求，请求未发出。",
    },
    said={
        "accepted": "商户 {operator}、用户 {uid} 的 {type} {key} 于 {at} 接收。",
        "amounts": "金额：{amounts}。",
        "attempt": "第 {n} 次通知（{trigger}）开始于 {at}。",
        "took": "用时 {seconds} 秒。",
        "took_ms": "用时 {ms} 毫秒。",
        "success": "商户答复已入账。",
        "http": "HTTP 状态码：{status}。",
        "code": "返回码：{code}。",
        "words": "商户原话：{words}。",
        "doubt": "商户仍可能已入账。",
        "late": "该结果到达时此次通知已被放弃：仅作记录，不影响状态。",
        "replay": "{at}，{actor} 下令重新发送。",
        "resolve": "{at}，{actor} 人工处理。",
        "by_hand": "{at}，{actor} 人工操作：{verb}。",
        "note": "备注：{note}。",
        "booked_yes": "是否入账：是。商户已确认。",
        "booked_yes_late": "是否入账：是。商户已确认，但该答复到达过迟，未计入此处状态。",
        "booked_maybe": "是否入账：未定。第 {attempts} 次通知的请求可能已到达商户，而没有足以判定的答复。"
        "须以商户账目为准。",
        "booked_maybe_now": "是否入账：未定。正在通知，答复尚未到达。",
        "booked_no_untried": "是否入账：否。尚未发送。",
        "booked_no_unsent": "是否入账：否。没有完整的请求到达商户。",
        "booked_no_refused": "是否入账：按商户自己的答复为否，没有一次表示成功。如有疑问，以商户账目为准。",
        "next_delivered": "不再发送。",
        "next_sending": "正在通知。",
        "next_dead": "已放弃：不再自动发送。可重发或人工处理。",
        "next_dead_final": "商户的返回码表示终局，故未再重试。",
        "next_ask": "人工处理前请先向商户核对此订单。如重新发送，商户须按订单号识别，不得重复入账。",
        "next_close": "商户已确认入账：不应重发，可人工处理。",
        "next_resolved": "已人工处理：不再发送。",
        "next_parked": "排在同一队列较早的事件之后，待其离队后发送。",
        "next_gone": "该商户没有生效的设置：设置完成前不会发送。",
        "next_paused": "商户自 {at} 起暂停：恢复前不会发送。暂停不消耗重试次数。",
        "next_held": "商户连续失败，自 {at} 起熔断：每隔一段时间试发一笔，成功后全部继续。熔断不消耗重试次数。",
        "put_off": "因我方故障推迟，不消耗重试次数。{why}",
        "next_due": "下次通知时间为 {at}。",
        "next_overdue": "下次通知自 {at} 起到期，有空位即发送。",
        "next_last": "若此次失败即放弃，等待人工处理。",
        "next_end": "若此次及其后各次均失败，将于 {at} 放弃，等待人工处理。",
        "as_of": "截至 {at}；时间均为 {zone}。",
    },
    join="",
    quote="“{}”",
)

TONGUES = {"en": ENGLISH, "zh": CHINESE}
