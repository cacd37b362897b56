"""How often the gate passes, stops and fails models of a known true loss: the power table of docs/evaluation.md.

    python bench/gate_power.py [--quick] [--bets] [--nel PYTHON] [--json FILE]

Draws outcomes with a fixed seed and decides them by three rules: the sequential test of `evalstats` (looked at after every
item), the rule of report version 1 (fixed n: Tango's lower bound, and "worse beyond chance" for a failure), and the rule of
NVIDIA's `nel gate` (a 95% t interval of the paired difference, at least 10 items). --nel names a Python in which nemo-evaluator
0.3 or newer is installed: its own gate then judges a part of the same outcomes as files, and the verdicts are compared.
--bets prints instead how many items an unharmed model needs with the gate's bets and with bets that estimate the gain, and
how many a loss of ten points needs to be failed.
Exits with 1 when a bar of the default gate is missed, or when nel decides otherwise than the rule here says.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from scipy.stats import t as student_t

from evalstats.bets import designs, gain_bound
from evalstats.metric import Metric
from evalstats.policy import Role, SuitePolicy
from evalstats.power import Draw, choices, first_reached
from evalstats.proportions import tango

ALPHA, MARGIN = 0.05, 0.05
LOOKS = (20, 50, 100, 200, 300, 500, 700, 1_000)
MOST = LOOKS[-1]
DIFFER = (0.04, 0.08, 0.12, 0.20)
"""Shares of items that the two models answer differently."""
SUITES = {
    "domain": SuitePolicy(name="domain", role=Role.DOMAIN, margin=0.0, items=400),
    "arc_easy": SuitePolicy(name="arc_easy", role=Role.RETAINED, margin=MARGIN, items=2_000),
    "bits_per_byte": SuitePolicy(name="bits_per_byte", role=Role.RETAINED, margin=MARGIN, items=300),
}
"""The recommended default policy. ARC-Easy has 2,376 independent items, the texts 331."""
RETAINED = sum(suite.role is Role.RETAINED for suite in SUITES.values())
TEXT_SPREAD = 0.03
"""Standard deviation of a text's change in bits per byte, in a careful run."""
GAIN_LEARNED, DIFFER_LEARNED = 0.3, 0.5
"""Of the domain suite in a careful run."""
BAR = 0.95

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
NEL = Path(__file__).with_name("gate_nel.py")


def draws(runs: int, items: int, differ: float, gain: float, seed: int) -> Floats:
    """Gains of accuracy, [runs, items]."""
    return choices(np.full(runs, differ), gain)(np.random.RandomState(seed), np.arange(runs), items)


def decided(
    gains: Draw, suite: SuitePolicy, runs: int, seed: int, *, metric: Metric, most: int
) -> tuple[Ints, Ints]:
    """After how many items each run's sequential test passes, and fails; most + 1 for never. Both on the same outcomes."""
    above, below = designs(suite, gain_bound(metric, suite.margin))

    def losses(random: np.random.RandomState, sequences: Ints, items: int) -> Floats:
        return -gains(random, sequences, items)

    both = []
    for draw, design, threshold in (
        (gains, above, math.log(1 / ALPHA)),
        (losses, below, math.log(RETAINED / ALPHA)),
    ):
        whole = _all_runs(draw, runs)
        both.append(
            first_reached(
                whole, design, threshold, random=np.random.RandomState(seed), sequences=runs, most=most
            )
        )
    return both[0], both[1]


def _all_runs(draw: Draw, runs: int) -> Draw:
    def whole(random: np.random.RandomState, sequences: Ints, items: int) -> Floats:
        return draw(random, np.arange(runs), items)[sequences]

    return whole


@cache
def old_verdict(improved: int, worsened: int, n: int) -> int:
    """1 pass, -1 failed, 0 neither, by the rule of report version 1 for one retained suite of independent items."""
    lower, upper = tango(improved, worsened, n, 1 - 2 * ALPHA)
    if lower > -MARGIN:
        return 1
    p = float(binom.cdf(improved, improved + worsened, 0.5)) if improved + worsened else 1.0
    # Holm over four suites of which the others did not change.
    regressed = improved < worsened and min(1.0, 4 * p) < ALPHA
    return -1 if upper < -MARGIN or (regressed and (improved - worsened) / n < -MARGIN) else 0


def old(gains: Floats, n: int) -> Ints:
    counted = gains[:, :n]
    tables = zip((counted > 0).sum(axis=1), (counted < 0).sum(axis=1), strict=True)
    return np.array([old_verdict(int(b), int(c), n) for b, c in tables])


def nel(gains: Floats, n: int) -> Ints:
    """1 GO, -1 NO-GO, 0 INCONCLUSIVE: the rule of nemo_evaluator.engine.gate for one required benchmark."""
    counted = gains[:, :n]
    if n < 10:
        return np.zeros(len(gains), dtype=np.int64)
    half = float(student_t.ppf(0.975, n - 1)) * counted.std(axis=1, ddof=1) / math.sqrt(n)
    mean = counted.mean(axis=1)
    passed, breached = np.round(half - mean, 6) <= MARGIN, np.round(-mean - half, 6) > MARGIN
    return np.where(breached, -1, np.where(passed, 1, 0))


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def one_suite(
    title: str, differ: float, gain: float, *, runs: int, seed: int, what: str
) -> list[dict[str, Any]]:
    """The share of runs that pass, or fail, one retained suite within n items, by each rule."""
    gains = draws(runs, MOST, differ, gain, seed)
    passes, fails = _sequential(gains)
    rows, found = [], []
    sign = 1 if what == "pass" else -1
    ever = {"old": np.zeros(runs, dtype=bool), "nel": np.zeros(runs, dtype=bool)}
    for n in LOOKS:
        new = (passes <= n) & (passes < fails) if what == "pass" else (fails <= n) & (fails < passes)
        once = {"old": old(gains, n) == sign, "nel": nel(gains, n) == sign}
        for rule in ever:
            ever[rule] = ever[rule] | once[rule]
        shares = [once["old"].mean(), ever["old"].mean(), once["nel"].mean(), ever["nel"].mean(), new.mean()]
        rows.append([f"{n:,}", *map(percent, shares)])
        names = ("fixed_n", "fixed_n_repeated", "nel", "nel_repeated", "sequential")
        found.append({"n": n, **{name: float(share) for name, share in zip(names, shares, strict=True)}})
    head = (
        "n",
        "before",
        "before, any of the looks so far",
        "nel gate",
        "nel gate, any look",
        "now, any look",
    )
    table(title, head, rows)
    return found


def _sequential(gains: Floats) -> tuple[Ints, Ints]:
    def replay(source: Floats) -> Draw:
        position = [0]

        def draw(_: np.random.RandomState, sequences: Ints, items: int) -> Floats:
            begun = position[0]
            position[0] += items
            return source[sequences, begun : begun + items]

        return draw

    above, below = designs(SUITES["arc_easy"], 1.0)
    unused = np.random.RandomState(0)
    runs, most = gains.shape
    passes = first_reached(
        replay(gains), above, math.log(1 / ALPHA), random=unused, sequences=runs, most=most
    )
    fails = first_reached(
        replay(-gains), below, math.log(RETAINED / ALPHA), random=unused, sequences=runs, most=most
    )
    return passes, fails


def whole_gate(differ: float, gain: float, text_change: float, runs: int) -> dict[str, float]:
    """The default gate of three suites: share passed and failed, and the items that were scored, on average."""
    passed, failed = np.ones(runs, dtype=bool), np.zeros(runs, dtype=bool)
    items = {}
    models = {
        "domain": (DIFFER_LEARNED, GAIN_LEARNED),
        "arc_easy": (differ, gain),
        "bits_per_byte": (0.0, -text_change),
    }
    for name, suite in SUITES.items():
        passes, fails = suite_ends(name, *models[name], runs)
        passed &= (passes <= suite.items) & (passes < fails)
        failed |= (fails <= suite.items) & (fails < passes)
        items[name] = float(np.minimum(np.minimum(passes, fails), suite.items).mean())
    return {"pass": float(passed.mean()), "failed": float(failed.mean()), **items}


@cache
def suite_ends(name: str, differ: float, gain: float, runs: int) -> tuple[Ints, Ints]:
    """After how many items each run passes one suite, and fails it."""
    suite, seed = SUITES[name], 5 + list(SUITES).index(name)
    texts = name == "bits_per_byte"
    draw = _texts(-gain) if texts else choices(np.full(runs, differ), gain)
    metric = Metric.BITS_PER_BYTE if texts else Metric.ACCURACY
    passes, fails = decided(draw, suite, runs, seed, metric=metric, most=suite.items)
    return passes, fails if suite.role is Role.RETAINED else np.full(runs, suite.items + 1)


def _texts(change: float) -> Draw:
    bound = gain_bound(Metric.BITS_PER_BYTE, MARGIN)

    def draw(random: np.random.RandomState, sequences: Ints, items: int) -> Floats:
        values = -change + TEXT_SPREAD * random.standard_normal((len(sequences), items))
        return np.clip(values, -bound, bound) / bound

    return draw


def old_gate(differ: float, runs: int, seed: int) -> float:
    """Share of unharmed models that HellaSwag and ARC-Easy passed at 100 items each, by report version 1."""
    both = [old(draws(runs, 100, differ, 0.0, seed + i), 100) == 1 for i in range(2)]
    return float((both[0] & both[1]).mean())


def equal_items(gates: dict[str, dict[str, float]], runs: int) -> list[dict[str, float]]:
    """Pass of an unharmed arc_easy where nel gate asks as many items as the sequential test uses on average."""
    rows, found = [], []
    for differ in DIFFER:
        used = round(gates[f"{differ}/0.0/0.0"]["arc_easy"])
        most = SUITES["arc_easy"].items
        gains = draws(runs, most, differ, 0.0, 8)
        passes, fails = _sequential(gains)
        now, theirs = ((passes <= most) & (passes < fails)).mean(), (nel(gains, used) == 1).mean()
        rows.append([percent(differ), f"{used:,}", percent(theirs), percent(now)])
        found.append({"differ": differ, "items": used, "nel": float(theirs), "sequential": float(now)})
    head = ("items that differ", "items", "nel gate at these items", "now, these items on average")
    table("Pass of an unharmed model on arc_easy, at the same number of items", head, rows)
    return found


def bets(runs: int) -> None:
    """Items until an unharmed model passes: bets against a named alternative, and bets that estimate the gain."""
    rows = []
    named, _ = designs(SUITES["arc_easy"], 1.0)
    for differ in DIFFER:
        row = [percent(differ)]
        for design in (named, replace(named, target=None)):
            items = first_reached(
                choices(np.full(runs, differ)),
                design,
                math.log(1 / ALPHA),
                random=np.random.RandomState(9),
                sequences=runs,
                most=3_000,
            )
            row += [f"{np.quantile(items, share):,.0f}" for share in (0.5, 0.8, 0.95)]
        rows.append(row)
    head = [
        f"{bet}, {share} have passed" for bet in ("gate", "estimating") for share in ("50%", "80%", "95%")
    ]
    table("Items until an unharmed model passes", ["items that differ", *head], rows)
    _until_failed(runs)


def _until_failed(runs: int) -> None:
    """Items until a loss of ten points is failed, by the number of retained suites that share the error of a failure."""
    rows, suites = [], (1, 2, RETAINED + 1)
    _, below = designs(SUITES["arc_easy"], 1.0)
    for differ in (0.10, 0.12, 0.20):
        row = [percent(differ)]
        for retained in suites:
            items = first_reached(
                choices(np.full(runs, differ), 0.10),  # seen from the side of the loss
                below,
                math.log(retained / ALPHA),
                random=np.random.RandomState(10),
                sequences=runs,
                most=SUITES["arc_easy"].items,
            )
            row.append(f"{np.median(items):,.0f}; {np.minimum(items, SUITES['arc_easy'].items).mean():,.0f}")
        rows.append(row)
    head = [f"retained suites: {retained}" for retained in suites]
    table(
        "Items until a loss of 10 points is failed (median; mean)",
        ["items that differ", *head],
        rows,
    )


def beside_nel(python: str, evaluations: int, seed: int) -> dict[str, Any]:
    """Lets nel's own gate judge the first outcomes as files. Returns how many verdicts are as the rule here says."""
    cases = []
    for differ, gain in ((0.05, -0.05), (0.08, -0.05), (0.08, 0.0), (0.12, -0.1)):
        gains = draws(evaluations, 500, differ, gain, seed)
        for n in (20, 100, 500):
            said = nel(gains, n)
            cases += [(gains[run, :n].astype(int).tolist(), int(said[run])) for run in range(evaluations)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "cases.json"
        source.write_text(json.dumps({"margin": MARGIN, "cases": [gains for gains, _ in cases]}))
        done = subprocess.run(
            [python, str(NEL), str(source), folder], capture_output=True, text=True, timeout=900, check=False
        )
    if done.returncode != 0:
        raise SystemExit(f"nel gate did not run: {done.stderr[-2_000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    names = {1: "GO", -1: "NO-GO", 0: "INCONCLUSIVE"}
    alike = sum(names[said] == verdict for (_, said), verdict in zip(cases, answer["verdicts"], strict=True))
    return {
        "version": answer["version"],
        "cases": len(cases),
        "alike": alike,
        "exit_codes": answer["exit_codes"],
    }


def main() -> int:
    """Prints the tables; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick", action="store_true", help="few runs: shows that it works, gives no figures"
    )
    parser.add_argument(
        "--bets", action="store_true", help="prints how many items different bets need, and ends"
    )
    parser.add_argument("--nel", help="a Python with nemo-evaluator 0.3 or newer")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = 200 if arguments.quick else 2_000
    if arguments.bets:
        bets(runs)
        return 0
    found: dict[str, Any] = {"runs": runs}
    print(
        f"{runs:,} simulated evaluations a row; a share is uncertain by {percent(math.sqrt(0.05 * 0.95 / runs))} at 5%."
    )

    for differ in (0.05, 0.08):
        title = f"False pass: true loss at the margin (5 points), {percent(differ)} of the items differ"
        found[f"false_pass_{differ}"] = one_suite(title, differ, -MARGIN, runs=runs, seed=1, what="pass")
    found["false_fail"] = one_suite(
        "False failure: true loss at the margin, 8% of the items differ",
        0.08,
        -MARGIN,
        runs=runs,
        seed=2,
        what="fail",
    )
    for differ in DIFFER:
        title = f"Pass of an unharmed model, {percent(differ)} of the items differ"
        found[f"unharmed_{differ}"] = one_suite(title, differ, 0.0, runs=runs, seed=3, what="pass")
    found["lost_10_fail"] = one_suite(
        "Failure of a model that lost 10 points, 12% of the items differ",
        0.12,
        -0.10,
        runs=runs,
        seed=4,
        what="fail",
    )

    rows, gates, met, fewer = [], {}, True, runs // 2
    for differ in DIFFER:
        for loss, text_change in ((0.0, 0.0), (0.02, 0.0), (0.05, 0.0), (0.10, 0.0), (0.0, 0.05)):
            if loss > differ:
                continue
            gate = whole_gate(differ, -loss, text_change, fewer)
            gates[f"{differ}/{loss}/{text_change}"] = gate
            before = percent(old_gate(differ, fewer, 6)) if not loss and not text_change else ""
            model = f"lost {100 * loss:.0f} points" if loss else "unharmed"
            model = f"lost {text_change:g} bits per byte" if text_change else model
            shares = (percent(gate["pass"]), percent(1 - gate["pass"]), percent(gate["failed"]))
            used = (f"{gate[name]:,.0f}" for name in SUITES)
            rows.append([percent(differ), model, before, *shares, *used])
            if 0 < loss < MARGIN:  # tolerated: it may pass or not
                continue
            harmed = bool(loss or text_change)
            met &= (1 - gate["pass"] if harmed else gate["pass"]) >= BAR - 2 * math.sqrt(
                BAR * (1 - BAR) / runs
            )
    limits = ", ".join(f"{name} {suite.items:,}" for name, suite in SUITES.items())
    table(
        f"The whole default gate, {fewer:,} evaluations a row (at most {limits} items; domain gains 30 points)",
        (
            "items that differ (arc_easy)",
            "model",
            "pass before (100 items)",
            "pass",
            "stopped",
            "failed",
            *(f"{name} items" for name in SUITES),
        ),
        rows,
    )
    found["gate"] = gates
    found["equal_items"] = equal_items(gates, fewer)
    if arguments.nel:
        found["nel"] = beside_nel(arguments.nel, 5 if arguments.quick else 40, 1)
        of = found["nel"]
        met &= of["alike"] == of["cases"]
        print(
            f"\nnemo-evaluator {of['version']} judged {of['cases']} of these evaluations from files: "
            f"{of['alike']} as the rule here says; exit codes of `nel gate`: {of['exit_codes']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
