"""The report to hand over: one HTML file that needs nothing else, no script and no network."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from dispatcher.certify import text
from dispatcher.certify.check import Result
from dispatcher.certify.orders import PREFIX
from dispatcher.certify.suite import Finding, Plan
from dispatcher.certify.text import Text

_STYLE = """
body{font:15px/1.5 system-ui,"Noto Sans CJK SC","Microsoft YaHei",sans-serif;max-width:75rem;margin:2rem auto;
padding:0 1rem;color:#1c2330;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.45rem .6rem;border-bottom:1px solid #d5dae3;overflow-wrap:anywhere}
td:nth-child(2){white-space:nowrap;font-weight:600}
.fail td:nth-child(2){color:#a3120b}.pass td:nth-child(2){color:#0b6b2e}.warning td:nth-child(2){color:#8a4b00}
.not_seen td:nth-child(2),.not_applicable td:nth-child(2){color:#4a5568}
small{color:#4a5568}td:first-child small{white-space:nowrap}
@media print{body{margin:0;max-width:none}tr{break-inside:avoid}}
"""


class Run(NamedTuple):
    """A whole run: the operator's name, when it began (UTC, text), what was planned and what was found."""

    operator: str
    at: str
    plans: Sequence[Plan]
    findings: Sequence[Finding]

    @property
    def failed(self) -> int:
        return sum(finding.result is Result.FAIL for finding in self.findings)


def page(run: Run, language: str) -> str:
    """The report in one language."""

    def say(one: Text) -> str:
        return escape(one.said(language))

    verdict = text.FAILED.fill(count=run.failed) if run.failed else text.PASSED
    title = say(text.TITLE.fill(operator=run.operator))
    parts = [
        f'<!DOCTYPE html><html lang="{"zh-CN" if language == "zh" else "en"}"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
        f"<p><strong>{say(verdict)}</strong></p><p>{say(text.LEGEND)}</p>",
    ]
    for plan in run.plans:
        own = [finding for finding in run.findings if finding.kind == plan.kind]
        sent = text.SENT.fill(url=plan.url, at=run.at, **_in_the_end(plan, run.findings))
        parts.append(f"<h2>{escape(plan.kind)}</h2><p>{say(sent)} ")
        parts.append(f"{say(text.RECOGNISED.fill(prefix=PREFIX, uid=plan.player))}</p><table><thead><tr>")
        parts += [f'<th scope="col">{say(text.HEADINGS[name])}</th>' for name in _COLUMNS]
        parts += ["</tr></thead><tbody>", *(_row(finding, language) for finding in own), "</tbody></table>"]
    return "\n".join([*parts, "</body></html>\n"])


def document(run: Run, language: str) -> dict[str, object]:
    """The run for scripts; its sentences are in one language, its names are the same in both."""
    counts = {result.value: sum(one.result is result for one in run.findings) for result in Result}
    return {
        "operator": run.operator,
        "at": f"{run.at.replace(' ', 'T')}Z",
        "ok": run.failed == 0,
        "counts": counts,
        "sent": [plan._asdict() | _in_the_end(plan, run.findings) for plan in run.plans],
        "prefix": PREFIX,
        "checks": [_told(finding, language) for finding in run.findings],
    }


def _told(finding: Finding, language: str) -> dict[str, object]:
    texts = {name: getattr(finding.check, name).said(language) for name in ("title", "expected", "why", "mend")}
    return {
        "check": finding.check.name,
        "type": finding.kind,
        "result": finding.result,
        **texts,
        "came": finding.came(language),
        "notes": [note.said(language) for note in finding.notes],
        "orders": finding.keys,
        "answers": [answer._asdict() for answer in finding.answers],
    }


def _in_the_end(plan: Plan, findings: Sequence[Finding]) -> dict[str, int]:
    own = [finding for finding in findings if finding.kind == plan.kind]
    keys = {key for finding in own for key in finding.keys}
    return {"orders": len(keys), "requests": sum(len(finding.answers) for finding in own)}


_COLUMNS = ("check", "result", "expected", "came", "why", "mend")


def _row(finding: Finding, language: str) -> str:
    check = finding.check
    notes = "".join(f"<br>{escape(note.said(language))}" for note in finding.notes)
    keys = f"<br><small>{escape(', '.join(finding.keys))}</small>" if finding.keys else ""
    cells = (
        f"{escape(check.title.said(language))}<br><small>{escape(check.name)}</small>",
        escape(text.RESULTS[finding.result].said(language)),
        escape(check.expected.said(language)),
        f"{escape(finding.came(language))}{notes}{keys}",
        escape(check.why.said(language)),
        escape(check.mend.said(language)) if finding.result in (Result.FAIL, Result.WARNING) else "",
    )
    return f'<tr class="{finding.result}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
