"""What the services expose is named as Prometheus asks (the rules of `promtool check metrics`)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from promlint import find_promtool, problems, promtool_problems

pytestmark = pytest.mark.slow

SERVICES = ("datanet", "trainer", "inference", "attribution", "chain_relay")
EXPOSE = "import servicekit.server, {}.metrics; from prometheus_client import generate_latest as g; print(g().decode())"


@pytest.fixture(scope="module", params=SERVICES)
def page(request: pytest.FixtureRequest) -> str:
    """What a service's /metrics says at its start."""
    command = [sys.executable, "-c", EXPOSE.format(request.param)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def promtool() -> str:
    found = find_promtool()
    if found is None:
        pytest.skip("promtool is not here: scripts/promtool.sh says why")
    return found


def test_every_metric_a_service_declares_is_named_by_the_rules(page: str) -> None:
    assert "# TYPE openledger_rpcs_total counter" in page
    assert "# TYPE openledger_outbox_oldest_seconds gauge" in page
    assert problems(page) == []


def test_prometheus_own_checker_finds_nothing(page: str, promtool: str) -> None:
    assert promtool_problems(promtool, page) == []


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("# TYPE a_seconds gauge\na_seconds 1\n", "no help text"),
        ("# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n", "written out"),
        ("# HELP a_milliseconds A.\n# TYPE a_milliseconds gauge\na_milliseconds 1\n", "seconds"),
        ("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n", "only a counter"),
        ("# HELP a_gauge A.\n# TYPE a_gauge gauge\na_gauge 1\n", "its type"),
        ("# HELP aB A.\n# TYPE aB gauge\naB 1\n", "camelCase"),
        ("# HELP a_count A.\n# TYPE a_count gauge\na_count 1\n", "histogram"),
    ],
)
def test_what_breaks_a_rule_is_told(page: str, told: str) -> None:
    assert any(told in problem for problem in problems(page))


def test_prometheus_own_checker_would_tell(promtool: str) -> None:
    assert promtool_problems(promtool, "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n") != []
