"""The rules of `promtool check metrics`, for machines without it.

What promtool runs is client_golang's promlint; these are its validations, by their names there, over what our services
expose: so that a metric is checked on every machine. Where promtool is (on the PATH, or fetched by scripts/promtool.sh from
Debian's package), the tests ask it too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_FETCHED = Path(__file__).resolve().parents[2] / ".cache" / "promtool" / "usr" / "bin" / "promtool"
_TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
_BASE_OF = {
    "amperes": ("amps",), "bytes": ("bits",), "celsius": ("kelvin", "fahrenheit"), "grams": ("pounds", "ounces"),
    "joules": ("calories",), "meters": ("inches", "yards", "miles"), "ratio": ("percent",),
    "seconds": ("minutes", "hours", "days", "weeks"), "volts": ("volt",),
}  # fmt: skip
_PREFIXES = (
    "pico",
    "nano",
    "micro",
    "milli",
    "centi",
    "deci",
    "deca",
    "hecto",
    "kilo",
    "kibi",
    "mega",
    "mibi",
    "giga",
    "gibi",
    "tera",
    "tebi",
    "peta",
    "pebi",
)
_ABBREVIATIONS = ("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d")


def problems(text: str) -> list[str]:
    """Everything that is wrong with a page of /metrics; empty when it is clean."""
    return [
        f"{family.name}: {problem}"
        for family in text_string_to_metric_families(text)
        for problem in _of(family)
    ]


def _of(family: Metric) -> Iterator[str]:
    # The parser takes a counter's _total off.
    name = family.name + (
        "_total" if family.type == "counter" and f"{family.name}_total" in _names(family) else ""
    )
    words = name.split("_")
    if not family.documentation:
        yield "no help text"  # lintHelp
    if family.type == "counter" and not name.endswith("_total"):
        yield "a counter should end with _total"  # lintCounter
    if family.type != "counter" and name.endswith("_total"):
        yield "only a counter should end with _total"
    if family.type not in ("histogram", "summary") and name.endswith(("_count", "_sum", "_bucket")):
        yield "ends like a histogram's or summary's series"  # lintHistogramSummaryReserved
    if any(kind in words for kind in _TYPES):
        yield "its name should not hold its type"  # lintMetricTypeInName
    if ":" in name:
        yield "colons are for recording rules"  # lintReservedChars
    if re.search(r"[a-z][A-Z]", name) or any(re.search(r"[a-z][A-Z]", label) for label in _labels(family)):
        yield "snake_case, not camelCase"  # lintCamelCase
    if any(word in _ABBREVIATIONS for word in words):
        yield "units are written out"  # lintUnitAbbreviations
    for base, others in _BASE_OF.items():  # lintMetricUnits
        wrong = {*others, *(prefix + base for prefix in _PREFIXES)} & set(words)
        if wrong:
            yield f"use the base unit {base}, not {', '.join(wrong)}"
    if "le" in _labels(family) and family.type != "histogram":
        yield "only a histogram has the label le"


def _names(family: Metric) -> set[str]:
    # Without a sample (no label value yet) a counter's own name cannot be seen: ours all end with _total (metrics.counter).
    return {sample.name for sample in family.samples} or {f"{family.name}_total"}


def _labels(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels}


def find_promtool() -> str | None:
    """Prometheus's own checker: on the PATH, or where scripts/promtool.sh puts it."""
    return shutil.which("promtool") or shutil.which(str(_FETCHED))


def promtool_problems(promtool: str, text: str) -> list[str]:
    """What `promtool check metrics` says of a page."""
    told = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return [line for line in (told.stdout + told.stderr).splitlines() if line]
