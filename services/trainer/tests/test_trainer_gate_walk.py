"""No way round the gate: whatever one person does, a version that lost an ability is not served.

The service's own classes run over SQLite. Only the job is made up: it measures the suites that it was asked for and tells the
truth about them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import pytest

from evalstats.policy import GatePolicy, People, SuitePolicy
from identity.digest import canonical_json
from identity.names import GatePolicyName, ModelName, ModelVersionName
from servicekit.auth import Principal
from servicekit.database import engine, migrate, reading, transaction
from servicekit.database.request_ids import UNNAMED
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore
from trainer import model_policy
from trainer.assessment import Assessment, Intent
from trainer.contract.evaluation import EvaluationResult
from trainer.contract.files import RESULT_FILE, TrainingResult, write_json
from trainer.contract.spec import DEFAULTS, NO_REHEARSAL, EffectiveSpec, TrainingSpec
from trainer.entities import Job, JobKind, JobState, Run, Version, VersionState
from trainer.evaluations import Evaluations
from trainer.gate_policies import GatePolicies
from trainer.gate_policy import shipped_default
from trainer.job_handlers import EvaluationHandler, Locations
from trainer.overrides import Overrides
from trainer.promotion import Promotions
from trainer.store import evaluations, jobs, policies, runs, versions

DIGEST = "sha256:" + "0" * 64
SUITES = ("arc_easy", "bits_per_byte", "domain", "hellaswag")
SUBSETS = tuple(chain.from_iterable(combinations(SUITES, size) for size in range(1, 5)))
ALIKE = {"bits_per_byte": "hellaswag", "hellaswag": "bits_per_byte"}
"""Retained suites that differ in nothing but their names, once another is the one that was lost."""


def renamed(subset: tuple[str, ...]) -> tuple[str, ...]:
    """The same subset with the names of the two that are alike exchanged."""
    return tuple(sorted(ALIKE.get(suite, suite) for suite in subset))


PAIRS = [
    (first, second)
    for first, second in product(SUBSETS, repeat=2)
    if (first, second) <= (renamed(first), renamed(second))
]
"""Every ordered pair of subsets but those that another becomes by exchanging the two names."""
REASON = "nobody will notice that it forgets"
EVERY_ROLE = frozenset({"builder", "approver", "admin"})
ALICE = Principal("alice", EVERY_ROLE)
SPELLINGS = tuple(
    Principal(name, EVERY_ROLE) for name in ("alice", "Alice", "alice ", "\u0430lice", "al\u00edce", "a1ice")
)
NO_INTENT = Intent()
BOB = Principal("bob", EVERY_ROLE)


class Platform:
    """The control plane without its server, and a job that tells the truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = engine(f"sqlite:///{folder / 'trainer.db'}")
        migrate(self.engine, "trainer")
        self.objects = ObjectStore(folder / "objects")
        self.policies = GatePolicies(self.engine, self.objects)
        self.policies.add_default()
        self.evaluations = Evaluations(self.engine, self.objects)
        self.overrides = Overrides(self.engine)
        self.promotions = Promotions(self.engine, self.objects)
        self.handler = EvaluationHandler(Locations(str(folder / "objects"), str(folder)), self.objects)
        self.models = 0

    def model(self) -> str:
        self.models += 1
        return f"m{self.models}"

    def train(self, model: str, intent: Intent = NO_INTENT) -> ModelVersionName:
        """A run of a model as `Runs.create` records it, and its version. Raises as the service does for its intent."""
        spec = TrainingSpec(learning_rate=5e-4, steps=40, rehearsal=NO_REHEARSAL, **DEFAULTS)
        with transaction(self.engine) as session:
            held_to = model_policy.of_new_run(session, model, intent)
            run = Run(
                job=jobs.add(session, JobKind.TRAIN),
                model=model,
                base_model="tiny",
                base_digest=DIGEST,
                snapshots=(),
                spec=spec,
                origins=dict.fromkeys(spec.values(), "user"),
                intent=intent,
                assessment=Assessment(
                    findings=(),
                    suggested=spec,
                    effective=EffectiveSpec(spec, {}),
                    expected_s=1.0,
                    expected_basis="",
                ),
                principal="alice",
                version=0,
                tokens_per_s=0.0,
                gate_policy=held_to.source.name,
                policy_digest=policies.put(session, held_to.effective),
            )
            runs.add(session, run)
            result = TrainingResult(
                adapter_digest=DIGEST,
                training_manifest_digest=DIGEST,
                compute="cpu",
                packages={},
                measurements={},
            )
            return versions.add(session, run, DIGEST, result).name

    def evaluate(
        self, version: ModelVersionName, suites: Collection[str], lost: str, items: int = 0
    ) -> Version:
        """Measures a version that lost an ability on one suite ("" for none)."""
        found = self.evaluations.start(ALICE, version, [(suite, items) for suite in suites], UNNAMED)
        if found.job.state is not JobState.SUCCEEDED:
            self._finish(found.job, lost)
        return self.version(version)

    def version(self, name: ModelVersionName) -> Version:
        with reading(self.engine) as session:
            found = versions.get(session, name)
        assert found is not None
        return found

    def _finish(self, job: Job, lost: str) -> None:
        folder = self.folder / job.id
        folder.mkdir()
        with transaction(self.engine) as session:
            jobs.move(session, job.id, JobState.RUNNING)
            evaluation = evaluations.get(session, job.id)
            assert evaluation is not None
            policy = policies.content(session, evaluation.policy_digest)
            assert policy is not None
            report = truthful_report(policy, evaluation.suites, lost)
            result = EvaluationResult(
                report_digest=self.objects.put_bytes(canonical_json(report)),
                outcomes_digest=DIGEST,
                verdict=report["gate"]["verdict"],
                findings=(),
                compute="cpu",
                measurements={},
            )
            write_json(folder / RESULT_FILE, result)
            self.handler.finish(session, job.id, folder)
            jobs.move(session, job.id, JobState.SUCCEEDED)


def truthful_report(policy: GatePolicy, orders: Any, lost: str) -> dict[str, Any]:
    suites = []
    for one in orders:
        suite = policy.suite(one["name"])
        failed = one["name"] == lost
        gain = -0.3 if failed else 0.0
        suites.append(
            {
                "name": one["name"],
                "role": suite.role.value if suite else "retained",
                "margin": one["margin"],
                "rule": suite.rule if suite else "",
                "version": suite.version if suite else "",
                "verdict": "failed" if failed else "pass",
                "finding": one["name"],
                "statistics": {
                    "n": one["items"],
                    "gain": {"value": gain, "interval": {"lower": gain - 0.1, "upper": gain + 0.1}},
                    "gain_standard_error": 0.05,
                },
            }
        )
    measured = {suite["name"]: suite["verdict"] for suite in suites}
    missing = [suite.name for suite in policy.suites if suite.name not in measured]
    failed = any(measured.get(suite.name) == "failed" for suite in policy.suites)
    verdict = "failed" if failed else "incomplete" if missing else "pass"
    return {
        "policy_digest": policy.digest,
        "suites": suites,
        "gate": {"verdict": verdict, "missing": missing, "findings": []},
    }


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    built = Platform(tmp_path_factory.mktemp("gate"))
    yield built
    built.engine.dispose()


def attempt(call: Callable[[], object]) -> bool:
    """Whether a call succeeds; a refusal is an answer."""
    try:
        call()
    except DomainError:
        return False
    return True


def promote(platform: Platform, version: ModelVersionName, override: Any = None) -> bool:
    attempt(lambda: platform.promotions.promote(ALICE, version, override, UNNAMED))
    return platform.version(version).state is VersionState.PROMOTED


def override_name(override: Any) -> Any:
    from identity.names import PromotionOverrideName

    return PromotionOverrideName(override.id)


def test_every_subset_of_suites_in_every_order_and_repetition_promotes_nothing(platform: Platform) -> None:
    lost = "arc_easy"
    for first, second in PAIRS:
        version = platform.train(platform.model())
        for number, suites in enumerate((first, second, first)):
            platform.evaluate(version, suites, lost, items=400 + number)
            assert not promote(platform, version), (first, second)
        failed = {report.report_digest for report in platform.version(version).failed_reports}
        assert bool(failed) == (lost in {*first, *second})


def test_an_unharmed_version_is_promoted_by_one_person_once_every_suite_was_measured(
    platform: Platform,
) -> None:
    for subset in SUBSETS:
        version = platform.train(platform.model())
        platform.evaluate(version, subset, "")
        assert promote(platform, version) == (set(subset) == set(SUITES)), subset


@pytest.mark.parametrize("seed", range(16))
def test_whatever_one_person_does_a_version_that_lost_something_is_not_served(
    platform: Platform, seed: int
) -> None:
    draw = random.Random(seed)
    model, lost = platform.model(), draw.choice(["arc_easy", "bits_per_byte", "hellaswag"])
    own = GatePolicyName(f"own-{model}")
    held: list[ModelVersionName] = [platform.train(model)]
    asked: list[Any] = []
    pending: list[Any] = []

    def train() -> None:
        keep = tuple((suite, draw.choice([0.0, 0.01, 0.05, 1.0])) for suite in draw.sample(SUITES, 1))
        intent = Intent(
            "", draw.choice([(), keep, (("mmlu", 0.1),)]), draw.choice(["", own.policy, "default"])
        )
        held.append(platform.train(model, intent))

    def evaluate() -> None:
        platform.evaluate(draw.choice(held), draw.choice(SUBSETS), lost, items=draw.choice([0, 2, 50, 5000]))

    def loosen() -> None:
        base = shipped_default()
        suites = [suite for suite in base.suites if suite.name != lost or draw.random() < 0.5]
        wide = [suite if draw.random() < 0.5 else _wide(suite) for suite in suites]
        policy = GatePolicy(
            suites=tuple(wide),
            alpha=draw.choice([0.05, 0.2]),
            seed=draw.choice([0, 1]),
            people=People(),
        )
        name = draw.choice([own, GatePolicyName("default")])
        made = platform.policies.create(draw.choice(SPELLINGS), name, policy, REASON, UNNAMED)
        pending.append(made.name)

    def approve_policy() -> None:
        platform.policies.approve(draw.choice(SPELLINGS), draw.choice(pending))

    def ask_override() -> None:
        made = platform.overrides.create(draw.choice(SPELLINGS[:1]), draw.choice(held), REASON, UNNAMED)
        asked.append(override_name(made))

    def approve_override() -> None:
        platform.overrides.approve(draw.choice(SPELLINGS), draw.choice(asked))

    def promote_one() -> None:
        override = draw.choice([None, *asked])
        platform.promotions.promote(ALICE, draw.choice(held), override, UNNAMED)

    def rollback() -> None:
        platform.promotions.rollback(ALICE, ModelName(model), REASON, UNNAMED)

    steps = [train, evaluate, loosen, approve_policy, ask_override, approve_override, promote_one, rollback]
    for _ in range(30):
        step = draw.choice(steps)
        if (step is approve_policy and not pending) or (step is approve_override and not asked):
            continue
        attempt(step)
        with reading(platform.engine) as session:
            assert versions.promoted(session, model) is None, step.__name__


def test_two_people_can_serve_it(platform: Platform) -> None:
    version = platform.train(platform.model())
    platform.evaluate(version, ("arc_easy",), "arc_easy", items=500)
    platform.evaluate(version, SUITES, "arc_easy", items=501)
    override = override_name(platform.overrides.create(ALICE, version, REASON, UNNAMED))
    assert not promote(platform, version, override)
    platform.overrides.approve(BOB, override)
    assert promote(platform, version, override)
    with reading(platform.engine) as session:
        lifted = versions.get(session, version)
    assert lifted is not None
    assert {report.override for report in lifted.failed_reports} == {override.override}


def test_a_pass_after_an_override_of_the_failure_needs_no_second_override(platform: Platform) -> None:
    version = platform.train(platform.model())
    platform.evaluate(version, SUITES, "arc_easy", items=500)
    assert platform.evaluate(version, SUITES, "", items=501).verdict == "failed"
    assert not promote(platform, version)
    override = override_name(platform.overrides.create(ALICE, version, REASON, UNNAMED))
    platform.overrides.approve(BOB, override)
    assert platform.version(version).verdict == "pass"
    assert promote(platform, version)


def test_a_complete_report_replaces_an_incomplete_one_and_never_the_reverse(platform: Platform) -> None:
    version = platform.train(platform.model())
    assert platform.evaluate(version, ("domain",), "").verdict == "incomplete"
    complete = platform.evaluate(version, SUITES, "")
    assert complete.verdict == "pass"
    assert platform.evaluate(version, ("domain", "arc_easy"), "").report_digest == complete.report_digest


def test_a_looser_policy_needs_a_second_person_and_then_holds(platform: Platform) -> None:
    model, name = platform.model(), GatePolicyName("narrow")
    version = platform.train(model)
    platform.evaluate(version, SUITES, "hellaswag")
    narrow = replace(
        shipped_default(), suites=tuple(s for s in shipped_default().suites if s.name != "hellaswag")
    )
    made = platform.policies.create(ALICE, name, narrow, REASON, UNNAMED)
    assert made.state.value == "pending"
    assert made.loosens == ("suite hellaswag is missing (of gatePolicies/default/versions/1)",)
    assert not attempt(lambda: platform.train(platform.model(), Intent(gate_policy="narrow")))
    assert not attempt(lambda: platform.policies.approve(ALICE, made.name))
    platform.policies.approve(BOB, made.name)
    assert not attempt(lambda: platform.train(model, Intent(gate_policy="narrow"))), "bound by its first run"
    fresh = platform.train(platform.model(), Intent(gate_policy="narrow"))
    platform.evaluate(fresh, ("arc_easy", "bits_per_byte", "domain"), "hellaswag")
    assert promote(platform, fresh)


def test_a_stricter_policy_is_active_at_once_and_an_old_report_no_longer_suffices(platform: Platform) -> None:
    name = GatePolicyName("strict")
    platform.policies.create(ALICE, name, shipped_default(), REASON, UNNAMED)
    version = platform.train(platform.model(), Intent(gate_policy="strict"))
    platform.evaluate(version, SUITES, "")
    tight = replace(shipped_default(), suites=tuple(_tight(suite) for suite in shipped_default().suites))
    assert platform.policies.create(ALICE, name, tight, REASON, UNNAMED).state.value == "active"
    assert not promote(platform, version)
    platform.evaluate(version, SUITES, "")
    assert promote(platform, version)
    back = platform.policies.create(ALICE, name, shipped_default(), REASON, UNNAMED)
    assert back.state.value == "pending", "as loose as the default, and looser than what is in force"


def test_an_approval_of_a_policy_that_another_replaced_is_refused(platform: Platform) -> None:
    name = GatePolicyName("raced")
    loose = replace(shipped_default(), alpha=0.1)
    first = platform.policies.create(ALICE, name, loose, REASON, UNNAMED)
    platform.policies.create(ALICE, name, shipped_default(), REASON, UNNAMED)
    assert not attempt(lambda: platform.policies.approve(BOB, first.name))


def test_more_people_than_two_can_be_asked_for(platform: Platform) -> None:
    carol = Principal("carol", EVERY_ROLE)
    three = replace(shipped_default(), people=People(promote=2, override=3, loosen=3))
    platform.policies.create(ALICE, GatePolicyName("three"), three, REASON, UNNAMED)
    passed, failed = (platform.train(platform.model(), Intent(gate_policy="three")) for _ in range(2))
    platform.evaluate(passed, SUITES, "")
    platform.evaluate(failed, SUITES, "arc_easy")
    for version, needed in ((passed, [BOB]), (failed, [BOB, carol])):
        assert not promote(platform, version)
        override = override_name(platform.overrides.create(ALICE, version, REASON, UNNAMED))
        for person in needed:
            assert not promote(platform, version, override)
            platform.overrides.approve(person, override)
        assert promote(platform, version, override)


def _wide(suite: SuitePolicy) -> SuitePolicy:
    return replace(suite, margin=0.0 if suite.name == "domain" else 0.9)


def _tight(suite: SuitePolicy) -> SuitePolicy:
    return suite if suite.name == "domain" else replace(suite, margin=0.04)
