"""`pytest --cpu`: the CPU seconds of each test file, those of the processes that it started and ended included.

A shared machine stretches wall time; CPU time shows what a file costs. A server that many files share counts for the file
whose process ends it.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Generator

import pytest

COLLECTION = "(start and collection)"
REST = "(between tests and at the end)"
SHOWN = 40


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", action="store_true", help="print the CPU seconds of each test file")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cpu"):
        config.pluginmanager.register(CpuByFile(config), "cpu_by_file")


def used_s() -> float:
    """Returns the CPU seconds of this process and of its children that have ended."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class CpuByFile:
    """Counts in each worker; the worker without workers, or the one that has them, prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seconds: Counter[str] = Counter()

    @pytest.hookimpl
    def pytest_collection_finish(self) -> None:
        self._seconds[COLLECTION] += used_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = used_s()
        done = yield
        self._seconds[item.nodeid.split("::")[0]] += used_s() - before
        return done

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["cpu_by_file"] = dict(self._counted())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        self._seconds.update(getattr(node, "workeroutput", {}).get("cpu_by_file", {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seconds = self._seconds if getattr(self._config.option, "numprocesses", None) else self._counted()
        terminalreporter.section(f"CPU seconds by file, {sum(seconds.values()):.0f} in all")
        for name, used in seconds.most_common(SHOWN):
            terminalreporter.write_line(f"{used:8.1f}  {name}")

    def _counted(self) -> Counter[str]:
        return self._seconds + Counter({REST: used_s() - sum(self._seconds.values())})
