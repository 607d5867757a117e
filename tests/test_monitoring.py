"""docs/metrics.md, the dashboard and the alerts, held against what daemons that worked really expose."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families as parsed

from dispatcher.metrics.families import OTHER
from dispatcher.store.counts.backlog import MOST_COUNTED, MOST_OPERATORS, MOST_READ
from tests.ground import notice
from tests.story import Story, orders, until

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "metrics.md").read_text("utf-8")
ALERTS = (DOCS / "monitoring" / "alerts.yml").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((DOCS / "monitoring" / "dashboard.json").read_text("utf-8"))
# What Prometheus and Grafana add by themselves.
THEIRS = {"instance", "le"}


class Exposed(NamedTuple):
    """What a process tells: each family, and the names of its labels."""

    families: dict[str, Metric]
    labels: dict[str, set[str]]

    @property
    def names(self) -> set[str]:
        """As queries name them."""
        return {sample.name for family in self.families.values() for sample in family.samples}


def exposed(text: str) -> Exposed:
    families = {_name(one): one for one in parsed(text)}
    labels = {
        name: {label for sample in one.samples for label in sample.labels if label != "le"}
        for name, one in families.items()
    }
    return Exposed(families, labels)


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exposed]:
    """`run` and `web`, after a delivery that went well, one that did not, and an event over HTTP."""
    with Story(tmp_path_factory.mktemp("monitored")) as story, story.receiving("--fail-first", "1") as receiver:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        key = story.key("enqueue", "read")
        with (
            story.running() as daemon,
            httpx.Client(base_url=daemon.web, headers=key, trust_env=False, timeout=60) as client,
        ):
            story.enqueue(orders(2))
            assert client.post("/v1/events", json=notice(order_no="7")).status_code == 202
            until(lambda: story.all_are("delivered"), told=daemon.text)
            run = exposed(client.get("/metrics").text)
        with story.running("web") as web:
            assert httpx.post(
                f"{web.web}/v1/events", headers=key, json=notice(order_no="8"), trust_env=False, timeout=60
            ).is_success
            alone = exposed(httpx.get(f"{web.web}/metrics", trust_env=False, timeout=60).text)
    return {"run": run, "web": alone}


def ours(found: Exposed) -> set[str]:
    return {name for name in found.families if name.startswith("dispatcher_")}


def test_the_page_has_every_metric_with_its_type_and_labels_and_where_it_is_from(both: dict[str, Exposed]) -> None:
    rows = re.findall(r"^\| `(dispatcher_\w+)` \| (\w+) \| ([^|]*)\| ([^|]+) \|", PAGE, re.MULTILINE)
    told = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)), {"both": {"run", "web"}}.get(where, {where[:3]}))
        for name, kind, labels, where in rows
    }
    found: dict[str, tuple[str, set[str], set[str]]] = {}
    for process, one in both.items():
        for name in ours(one):
            *_, before = found.get(name, ("", set(), set()))
            found[name] = (one.families[name].type, one.labels[name], before | {process})
    assert told == found


def test_the_worker_that_worked_has_a_sample_of_every_metric(both: dict[str, Exposed]) -> None:
    run = both["run"].families
    assert [name for name in ours(both["run"]) if not run[name].samples] == []
    assert {one.labels["result"] for one in run["dispatcher_attempts_total"].samples} == {"delivered", "retry"}


@pytest.mark.parametrize("text", [ALERTS, json.dumps(DASHBOARD)], ids=["alerts", "dashboard"])
def test_every_metric_and_label_that_is_asked_for_is_exposed(both: dict[str, Exposed], text: str) -> None:
    names = both["run"].names
    named = set(re.findall(r"\b((?:dispatcher|process)_\w+)", text))
    assert named - names == set()
    assert len(named) >= 10
    labels = {label for some in both["run"].labels.values() for label in some} | THEIRS
    asked = {one for group in re.findall(r"by \(([^)]*)\)", text) for one in group.split(", ")}
    asked |= set(re.findall(r"\{\{ ?\$?(?:labels\.)?(\w+) ?\}\}", text)) - {"value"}
    asked |= set(re.findall(r"[{,](\w+)=~?\\?\"", text))
    assert asked - labels == set()


def test_the_bounds_that_the_page_tells_are_those_that_hold() -> None:
    for told in (f"{MOST_COUNTED:,} entries", f"{MOST_READ:,} in all", f"`{OTHER}`", "first thousand"):
        assert told in PAGE
    assert MOST_OPERATORS == 1_000
    assert len(PAGE.encode()) < 9_000


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    variables = {f"${{{one['name']}}}" for one in DASHBOARD["templating"]["list"]}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] in ("row", "stat", "timeseries")
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] in variables
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert [one["refId"] for one in panel["targets"]] == list("ABC"[: len(panel["targets"])])
            assert all(one["expr"] and one["legendFormat"] for one in panel["targets"])


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    alerts = ALERTS.split("- alert: ")[1:]
    assert len(alerts) > 10
    for alert in alerts:
        assert re.search(r"severity: (critical|warning|info)\b", alert), alert
        assert re.search(r"^ +summary: .{15}", alert, re.MULTILINE), alert
        assert re.search(r"^ +action: .{15}", alert, re.MULTILINE), alert


def test_every_alert_is_tested() -> None:
    tested = (Path(__file__).parent / "alerts.test.yml").read_text("utf-8")
    assert [name for name in re.findall(r"- alert: (\w+)", ALERTS) if tested.count(name) < 1] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "words", [("check", "rules", "docs/monitoring/alerts.yml"), ("test", "rules", "tests/alerts.test.yml")]
)
def test_promtool_has_nothing_against_the_alerts(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=DOCS.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_every_query_of_the_dashboard_can_be_asked(tmp_path: Path) -> None:
    """As rules, which promtool parses: what Grafana puts in is put in."""
    queries = [one["expr"] for panel in DASHBOARD["panels"] for one in panel.get("targets", [])]
    rules = [
        {"record": f"q{n}", "expr": query.replace("$operator", ".*").replace("$__rate_interval", "5m")}
        for n, query in enumerate(queries)
    ]
    # JSON is YAML.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(queries) > 20
