"""Which gate policy a model is held to: the one that its runs name, as strict as any of them made it.

A run fixes an effective policy: the active version of the policy that its intent names, made stricter by the intent. It
binds every version of the model, until the policy that it came from is loosened, which takes several people. So one
person cannot loosen what a model is held to: not by another intent, another policy or another run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from sqlalchemy.orm import Session

from evalstats.policy import GatePolicy, InvalidPolicy, looser, stricter
from identity.names import GatePolicyName, GatePolicyVersionName, ModelName
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from trainer.assessment import Intent
from trainer.entities import GatePolicyVersion, Version
from trainer.gate_policy import DEFAULT, check_measurable, combined, tightened
from trainer.store import policies, runs


@dataclass(frozen=True)
class ModelPolicy:
    """What a model is held to, and the version of a gate policy that this was made from."""

    source: GatePolicyVersion
    effective: GatePolicy


def active(session: Session, name: GatePolicyName) -> GatePolicyVersion:
    """Returns the version of a policy that is in force. Raises NotFound."""
    found = policies.active(session, name)
    if found is None:
        raise NotFound("active gate policy", str(name))
    return found


def of_intent(session: Session, intent: Intent) -> ModelPolicy:
    """Returns what an intent alone asks for.

    Raises NotFound; InvalidArgument for what it may not keep; FailedPrecondition for a policy that cannot be measured.
    """
    source = active(session, GatePolicyName(intent.gate_policy) if intent.gate_policy else DEFAULT)
    check_measurable(source.policy)
    names = [suite for suite, _ in intent.keep]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InvalidArgument(f"intent.keep[{number}].suite", "suite", "is named twice", name)
    try:
        return ModelPolicy(source, stricter(source.policy, dict(intent.keep)))
    except InvalidPolicy as error:
        raise InvalidArgument(
            f"intent.{error.field}", "gate_policy", f"expected {error.expected}", str(error.value)
        ) from None


def of_new_run(session: Session, model: str, intent: Intent) -> ModelPolicy:
    """Returns what a new run of a model is held to. An intent that names neither a policy nor margins takes the model's.

    Raises as `of_intent`, and FailedPrecondition where the intent is looser than an earlier run of the model.
    """
    bound = _binding(session, model)
    if not intent.gate_policy and bound:
        intent = Intent(intent.purpose, intent.keep, bound[-1][0].policy)
    asked = of_intent(session, intent)
    if not intent.keep and (not bound or bound[-1][0].policy == asked.source.name.policy):
        return ModelPolicy(asked.source, _strictest(asked.effective, bound))
    found = _looser(asked.effective, bound)
    if found:
        raise FailedPrecondition(
            "GATE_POLICY_LOOSER",
            f"the intent is looser than earlier runs of models/{model}: {'; '.join(found)}. A new version of the gate policy, "
            "approved by a second person, can loosen it",
            subject=str(ModelName(model)),
        )
    return asked


def of_version(session: Session, version: Version) -> ModelPolicy:
    """Returns what a version is held to now. Raises NotFound."""
    named = version.run.gate_policy
    source = active(session, GatePolicyName(named.policy) if named else DEFAULT)
    own = tightened(source.policy, dict(version.run.intent.keep))
    return ModelPolicy(source, _strictest(own, _binding(session, version.name.model)))


def shortfall(session: Session, version: Version) -> list[str]:
    """Returns in what the policy of a version's report is looser than what the version is held to now."""
    judged_by = policies.content(session, version.policy_digest)
    if judged_by is None:
        return ["the report names no gate policy"]
    return looser(judged_by, of_version(session, version).effective)


Bound = list[tuple[GatePolicyVersionName, GatePolicy]]


def _binding(session: Session, model: str) -> Bound:
    """Returns the effective policies of a model's runs that bind it, oldest first, with the version of each."""
    found, loosened = [], dict[str, int]()
    for name, digest in runs.gate_policies(session, model):
        if name.policy not in loosened:
            loosened[name.policy] = policies.loosened_at(session, GatePolicyName(name.policy))
        policy = policies.content(session, digest)
        if policy is not None and name.version >= loosened[name.policy]:
            found.append((name, policy))
    return found


def _strictest(policy: GatePolicy, bound: Bound) -> GatePolicy:
    return reduce(combined, (effective for _, effective in bound), policy)


def _looser(policy: GatePolicy, bound: Bound) -> list[str]:
    sentences = [sentence for _, effective in bound for sentence in looser(policy, effective)]
    return list(dict.fromkeys(sentences))
