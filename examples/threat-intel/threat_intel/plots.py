"""The report's plots, as inline SVG: no script, no network, readable without colour."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

HERE, NAIVE, LEXICAL, BAD, GOOD = "#1f4e79", "#c77f2a", "#8a8a8a", "#a8322d", "#2f7d4f"
WAYS = {"careless": (BAD, "s"), "careful": (GOOD, "o")}


def forgetting_against_gain(suites: dict[str, list[dict[str, Any]]]) -> str:
    """Each way's gain on the task against its change on each kept suite, with margins and 95% intervals for a fixed n."""
    kept = [row["suite"] for row in next(iter(suites.values())) if row["gated"]]
    figure, axes = plt.subplots(1, len(kept), figsize=(10, 3.4), sharex=True)
    for axis, suite in zip([axes] if len(kept) == 1 else list(axes), kept, strict=True):
        for way, rows in suites.items():
            by_suite = {row["suite"]: row for row in rows}
            gain, change = by_suite["domain"], by_suite[suite]
            colour, marker = WAYS[way]
            axis.errorbar(
                gain["difference"],
                change["difference"],
                xerr=_reach(gain),
                yerr=_reach(change),
                fmt=marker,
                color=colour,
                capsize=3,
                label=way,
            )
        margin = by_suite[suite]["margin"]
        axis.axhline(-margin, color=BAD, linestyle="--", linewidth=1)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.annotate(
            f"margin -{margin:g}",
            (0.98, -margin),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color=BAD,
        )
        axis.set_title(f"{suite} (n={change['n']})", fontsize=9)
        axis.set_xlabel("gain on tactics (accuracy)", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("kept ability, tuned - base\n(below 0: forgotten)", fontsize=8)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return _svg(figure)


def shares_by_contributor(totals: list[dict[str, Any]], unattributed_ppm: float, control: list[float]) -> str:
    """Mean share of each contributor here, by naive normalisation and by the lexical baseline."""
    rows = sorted(totals, key=lambda row: row["ppm"])
    names = ["control records", "unattributed", *(row["contributor"] for row in rows)]
    here = [control[0], unattributed_ppm, *(row["ppm"] for row in rows)]
    naive = [control[1], 0.0, *(row["naive_ppm"] for row in rows)]
    lexical = [0.0, 0.0, *(row["lexical_ppm"] for row in rows)]
    figure, axis = plt.subplots(figsize=(10, 0.42 * len(names) + 0.8))
    places = range(len(names))
    errors = [
        [0.0, 0.0, *(max(0.0, row["ppm"] - row["lower"]) / 1e4 for row in rows)],
        [0.0, 0.0, *(max(0.0, row["upper"] - row["ppm"]) / 1e4 for row in rows)],
    ]
    axis.barh(
        [p + 0.27 for p in places],
        [v / 1e4 for v in here],
        height=0.27,
        color=HERE,
        xerr=errors,
        ecolor="black",
        capsize=2,
        label="here, 95% interval",
    )
    axis.barh(
        list(places),
        [v / 1e4 for v in naive],
        height=0.27,
        color=NAIVE,
        hatch="//",
        label="naive normalisation",
    )
    axis.barh(
        [p - 0.27 for p in places],
        [v / 1e4 for v in lexical],
        height=0.27,
        color=LEXICAL,
        label="lexical baseline (BM25)",
    )
    axis.set_yticks(list(places), names, fontsize=8)
    axis.set_xlabel("mean share of an answer, %", fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    axis.legend(fontsize=8, frameon=False)
    return _svg(figure)


def settlement(balances: list[dict[str, str]], gas_per_event: float, baseline_gas: int) -> str:
    """Who earned what, and what an event costs on chain."""
    rows = sorted(balances, key=lambda row: int(row["earned"]))
    names = [f"{row['beneficiary'].rsplit('/', 1)[-1]} ({row['kind'].replace('_', ' ')})" for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.3 * len(names) + 1.2), width_ratios=[3, 1])
    left.barh(
        names,
        [int(row["earned"]) / 1e18 for row in rows],
        color=[GOOD if row["kind"] == "contributor" else LEXICAL for row in rows],
    )
    left.set_xlabel("earned, OPEN", fontsize=8)
    left.tick_params(labelsize=7)
    bars = right.bar(["in batches", "one each"], [gas_per_event, baseline_gas], color=[HERE, NAIVE])
    right.bar_label(bars, [f"{gas_per_event:,.0f}", f"{baseline_gas:,}"], fontsize=8)
    right.set_ylabel("gas an event", fontsize=8)
    right.tick_params(labelsize=7)
    return _svg(figure)


def _reach(row: dict[str, Any]) -> list[list[float]]:
    return [[max(0.0, row["difference"] - row["lower"])], [max(0.0, row["upper"] - row["difference"])]]


def _svg(figure: Figure) -> str:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), count=1, flags=re.S)
