"""What each role may do. A role is the job of a person or a service, not a rank; a principal may have several."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_DATANET = {
    "datanet.datanets.create",
    "datanet.datanets.read",
    "datanet.contributors.write",
    "datanet.contributors.read",
    "datanet.records.contribute",
    "datanet.records.review",
    "datanet.records.withdraw",
    "datanet.records.read",
    "datanet.snapshots.seal",
    "datanet.snapshots.read",
    "datanet.operations.read",
    "datanet.operations.cancel",
}
_TRAINER = {
    "trainer.basemodels.read",
    "trainer.specs.assess",
    "trainer.parameters.read",
    "trainer.runs.create",
    "trainer.runs.read",
    "trainer.runs.cancel",
    "trainer.models.read",
    "trainer.models.evaluate",
    "trainer.models.export",
    "trainer.models.promote",
    "trainer.overrides.create",
    "trainer.overrides.approve",
    "trainer.overrides.read",
    "trainer.policies.create",
    "trainer.policies.approve",
    "trainer.policies.read",
    "trainer.reports.read",
}
_INFERENCE = {"inference.models.read", "inference.answers.generate"}
_ATTRIBUTION = {"attribution.records.read", "attribution.indexes.read"}
_SETTLEMENT = {
    "settlement.batches.read",
    "settlement.batches.flush",
    "settlement.rewards.read",
    "settlement.rewards.propose",
    "settlement.proofs.read",
}

_AUDIT = {"audit.facts.read"}

PERMISSIONS: frozenset[str] = frozenset(
    _DATANET | _TRAINER | _INFERENCE | _ATTRIBUTION | _SETTLEMENT | _AUDIT
)
"""All permissions: ``<area>.<what>.<verb>``."""

_READS = frozenset(permission for permission in PERMISSIONS if permission.endswith(".read"))
_TRAINER_READS = frozenset(permission for permission in _READS if permission.startswith("trainer."))
_DATANET_READS = frozenset(permission for permission in _READS if permission.startswith("datanet."))

ROLE_PERMISSIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # gives data, follows what it earns
        "contributor": frozenset(
            {
                "datanet.records.contribute",
                "datanet.records.withdraw",
                "datanet.datanets.read",
                "datanet.snapshots.read",
                "settlement.rewards.read",
                "settlement.proofs.read",
            }
        ),
        # owns Datanets: who contributes, what is kept, when it is sealed
        "curator": _DATANET_READS
        | {
            "datanet.datanets.create",
            "datanet.contributors.write",
            "datanet.records.review",
            "datanet.records.withdraw",
            "datanet.snapshots.seal",
            "datanet.operations.cancel",
        },
        # trains and evaluates models; may ask for an override, not grant it
        "builder": _TRAINER_READS
        | {
            "trainer.specs.assess",
            "trainer.runs.create",
            "trainer.runs.cancel",
            "trainer.models.evaluate",
            "trainer.models.export",
            "trainer.models.promote",
            "trainer.overrides.create",
            "trainer.policies.create",
            "datanet.datanets.read",
            "datanet.snapshots.read",
            "inference.models.read",
            "attribution.records.read",
            "attribution.indexes.read",
        },
        # the second pair of eyes before a model answers users
        "approver": _TRAINER_READS
        | {
            "trainer.models.promote",
            "trainer.overrides.create",
            "trainer.overrides.approve",
            "trainer.policies.create",
            "trainer.policies.approve",
            "datanet.datanets.read",
            "datanet.snapshots.read",
            "inference.models.read",
            "attribution.records.read",
            "attribution.indexes.read",
        },
        # asks, and sees where an answer came from
        "user": frozenset(
            {"inference.answers.generate", "inference.models.read", "attribution.records.read"}
        ),
        # keeps settlement running, reconciles the services' records
        "operator": _READS | {"settlement.batches.flush", "settlement.rewards.propose"},
        # sees everything, changes nothing
        "auditor": _READS,
        # one service reading from another; none audits another
        "service": _READS - _AUDIT,
        "admin": PERMISSIONS,
    }
)
