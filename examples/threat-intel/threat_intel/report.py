"""report.html: one self-contained page with the story's plots, tables and sources."""

from __future__ import annotations

from pathlib import Path

import jinja2

from threat_intel import plots
from threat_intel.journal import Journal


def write_report(path: Path, journal: Journal) -> None:
    """Writes the page from the finished steps' results."""
    facts = {step: result["facts"] for step, result in journal.results.items()}
    figures = {step: result["figures"] for step, result in journal.results.items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["open"] = lambda base_units: f"{int(base_units) / 1e18:,.6f}"
    environment.filters["number"] = _number
    page = environment.get_template("report.html.j2").render(
        run=journal.run,
        scale=journal.scale,
        facts=facts,
        figures=figures,
        walls={step: result["wall_s"] for step, result in journal.results.items()},
        forgetting=plots.forgetting_against_gain(facts["evaluate"]["suites"]),
        shares=plots.shares_by_contributor(
            facts["attribute"]["totals"],
            facts["attribute"]["unattributed_ppm"],
            facts["attribute"]["control"],
        ),
        settlement=plots.settlement(
            facts["settle"]["balances"], facts["settle"]["gas_per_event"], facts["settle"]["baseline_gas"]
        ),
    )
    path.write_text(page, encoding="utf-8")


def _number(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
