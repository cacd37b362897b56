"""Metrics follow Prometheus's naming rules: `promtool check metrics` has nothing to report."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openledger_client import services
from openledger_testing.promtool import problems

pytestmark = pytest.mark.slow

EXPOSE = "import servicekit.server, {}.metrics; from prometheus_client import generate_latest as g; print(g().decode())"


@pytest.fixture(scope="module", params=[service.module for service in services.ALL])
def page(request: pytest.FixtureRequest) -> str:
    """What a service's /metrics says when it starts."""
    command = [sys.executable, "-c", EXPOSE.format(request.param)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_service_declares_the_metrics_that_every_service_has(page: str) -> None:
    assert "# TYPE openledger_requests_total counter" in page
    assert "# TYPE openledger_outbox_oldest_seconds gauge" in page


def test_every_metric_a_service_declares_follows_the_rules(page: str) -> None:
    assert problems(page) == []


def test_a_metric_that_breaks_a_rule_is_reported() -> None:
    assert problems("# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n") != []
