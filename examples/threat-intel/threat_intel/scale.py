"""How large a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Counts of one run. Chosen for two cores and for effects that 95% intervals can show (docs/training.md)."""

    name: str
    base_model: str
    records_per_vendor: int
    copier_records: int
    careless_records: int
    held_out_fraction: float
    control_fraction: float
    steps: int
    batch_size: int
    suites: dict[str, int]
    """Most items of each suite in the demo's gate policy. Scoring stops at a suite's verdict."""
    questions: int
    """Held-out questions asked of the adapter."""
    base_questions: int
    """Questions asked of the base in the same batches."""
    http_questions: int
    """Questions asked through the OpenAI-compatible API."""
    jobs_at_once: int
    """Trainings or evaluations that share the machine: one where each fills it, two where each mostly starts."""


FULL = Scale(
    name="full",
    base_model="smollm2-135m-instruct",
    records_per_vendor=130,
    copier_records=70,
    careless_records=60,
    held_out_fraction=0.2,
    control_fraction=0.12,
    steps=40,
    batch_size=16,
    suites={"domain": 400, "arc_easy": 2000, "bits_per_byte": 300},
    questions=36,
    base_questions=6,
    http_questions=4,
    jobs_at_once=1,
)

SMALL = Scale(
    name="small",
    base_model="tiny",
    records_per_vendor=16,
    copier_records=10,
    careless_records=16,
    held_out_fraction=0.25,
    control_fraction=0.2,
    steps=6,
    batch_size=4,
    suites={"domain": 12, "arc_easy": 8, "bits_per_byte": 8},
    questions=8,
    base_questions=2,
    http_questions=2,
    jobs_at_once=2,
)
