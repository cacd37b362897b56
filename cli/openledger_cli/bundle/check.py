"""Rechecks a bundle with nothing but its bytes and an RPC address.

Every check recomputes: digests from bytes, the snapshot's root from its records, the report's statistics from per-item
outcomes, the leaf from its fields, the split of the fee. What the chain says is asked of the chain.

A bundle names the contracts itself, and whoever forges a bundle can deploy contracts that agree with it. So the contracts are
verified only by addresses that the verifier has from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalstats.outcomes import InvalidOutcomes
from evalstats.policy import GatePolicy
from evalstats.report import InvalidReport
from evalstats.verification import check_policy, check_report
from identity import evm_merkle, snapshot
from identity.digest import canonical_json, digest_json, digest_to_bytes, sha256_bytes
from identity.folding import distinct_people
from identity.leaf import AttributionLeaf, InvalidLeaf, RewardLeaf, name_hash
from openledger_cli.bundle import layout
from openledger_cli.chain import DISTRIBUTOR_ABI, LEDGER_ABI, REGISTRY_ABI, Chain
from openledger_client.errors import OpenLedgerError


class Broken(Exception):
    """A check failed; the text says where and what."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    passed: bool
    detail: str
    """What was found; "" when the check found nothing that it could compare."""
    unchecked: str = ""
    """What the check could not look at, and why; "" when it was complete."""


@dataclass(frozen=True, kw_only=True)
class Contracts:
    """The platform's contracts as the verifier knows them; "" for one that it does not know."""

    registry: str = ""
    ledger: str = ""
    distributor: str = ""


Checked = str | tuple[str, str]
"""What was found; and what was not checked, if anything."""


@dataclass
class Bundle:
    """A bundle's bytes, and its JSON files parsed."""

    folder: Path
    raw: dict[str, bytes] = field(default_factory=dict)
    parsed: dict[str, Any] = field(default_factory=dict)

    def load(self) -> None:
        """Reads every file. Raises Broken for a missing, unreadable or non-canonical one."""
        for name in (layout.INDEX, *layout.FILES):
            path = self.folder / name
            try:
                self.raw[name] = path.read_bytes()
            except OSError as error:
                raise Broken(f"{name}: {error.strerror}") from None
            if name == layout.RECORDS:
                continue
            try:
                self.parsed[name] = json.loads(self.raw[name])
            except ValueError as error:
                raise Broken(f"{name}: not JSON: {error}") from None
            if canonical_json(self.parsed[name]) != self.raw[name]:
                raise Broken(f"{name}: not in canonical form: its bytes were changed")

    @property
    def index(self) -> dict[str, Any]:
        """bundle.json."""
        found: dict[str, Any] = self.parsed[layout.INDEX]
        return found


def check_bundle(folder: Path, chain: Chain, known: Contracts = Contracts()) -> Iterator[Finding]:
    """Runs every check in order and yields its outcome; a check that cannot run because another failed says so."""
    bundle = Bundle(folder)
    yield _run("files", lambda: _files(bundle))
    checks: list[tuple[str, Callable[[], Checked]]] = [
        ("contracts", lambda: _contracts(bundle, known)),
        ("snapshot root", lambda: _snapshot(bundle, chain)),
        ("evaluation report", lambda: _report(bundle, chain)),
        ("gate policy", lambda: _policy(bundle)),
        ("attribution record", lambda: _attribution(bundle)),
        ("inclusion on chain", lambda: _inclusion(bundle, chain)),
        ("fee split", lambda: _split(bundle)),
        ("payout on chain", lambda: _payout(bundle, chain)),
    ]
    for name, check in checks:
        yield _run(name, check)


def _run(name: str, check: Callable[[], Checked]) -> Finding:
    try:
        found = check()
        return Finding(name, True, *((found,) if isinstance(found, str) else found))
    except Broken as error:
        return Finding(name, False, str(error))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return Finding(name, False, f"a field is missing or has the wrong type: {error}")
    except (ValueError, InvalidLeaf, InvalidReport, InvalidOutcomes, OpenLedgerError) as error:
        return Finding(name, False, str(error))


def _require(condition: bool, where: str) -> None:
    if not condition:
        raise Broken(where)


def _files(bundle: Bundle) -> str:
    bundle.load()
    index = bundle.index
    _require(
        set(index) == {"schema", "inference", "account", "registry_address", "files"},
        f"{layout.INDEX}: wrong fields",
    )
    _require(
        index["schema"] == layout.SCHEMA,
        f"{layout.INDEX}: schema {index['schema']!r} is not {layout.SCHEMA!r}",
    )
    _require(set(index["files"]) == set(layout.FILES), f"{layout.INDEX}: names other files than a bundle has")
    for name in layout.FILES:
        found = sha256_bytes(bundle.raw[name])
        _require(
            found == index["files"][name],
            f"{name}: its bytes are {found}, {layout.INDEX} names {index['files'][name]}",
        )
    return f"{len(layout.FILES)} files, every digest right"


def _contracts(bundle: Bundle, known: Contracts) -> Checked:
    named = {
        "registry": bundle.index["registry_address"],
        "ledger": bundle.parsed[layout.INCLUSION]["leaf"]["ledger_address"],
        "distributor": bundle.parsed[layout.REWARD]["distributor_address"],
    }
    unknown = []
    for contract, address in named.items():
        expected = getattr(known, contract)
        if not expected:
            unknown.append(f"{contract} {address}")
            continue
        _require(
            address.lower() == expected.lower(),
            f"{contract}: the bundle names {address}, expected {expected}",
        )
    agreeing = len(named) - len(unknown)
    agree = f"{agreeing} of {len(named)} addresses are the expected ones" if agreeing else ""
    if not unknown:
        return agree
    return agree, f"only the bundle names {', '.join(unknown)}: compare with addresses from another source"


def _snapshot(bundle: Bundle, chain: Chain) -> Checked:
    manifest, version = bundle.parsed[layout.MANIFEST], bundle.parsed[layout.VERSION]
    records = bundle.raw[layout.RECORDS]
    root = snapshot.root(records)
    count = sum(1 for _ in snapshot.read_lines(records))
    _require(
        root == manifest["root"], f"{layout.RECORDS}: root is {root}, the manifest says {manifest['root']}"
    )
    trained = version["snapshots"][0]
    _require(
        root == trained["root"],
        f"{layout.VERSION}: trained on root {trained['root']}, the records' root is {root}",
    )
    _require(
        sha256_bytes(bundle.raw[layout.MANIFEST]) == trained["manifest_digest"],
        f"{layout.MANIFEST}: not the manifest the model was trained on",
    )
    registry = chain.contract(bundle.index["registry_address"], REGISTRY_ABI)
    on_chain = bytes(registry.functions.datasets(name_hash(trained["snapshot"])).call()[0])
    _require(
        on_chain == digest_to_bytes(root),
        f"{trained['snapshot']}: the registry holds 0x{on_chain.hex()}, the records' root is {root}",
    )
    found = f"{trained['snapshot']}: {count:,} records give {root}, as registered on chain"
    others = [each["snapshot"] for each in version["snapshots"][1:]]
    if not others:
        return found
    return found, f"the records of {', '.join(others)}: a bundle holds those of one snapshot"


def _report(bundle: Bundle, chain: Chain) -> str:
    report, version = bundle.parsed[layout.REPORT], bundle.parsed[layout.VERSION]
    digest = sha256_bytes(bundle.raw[layout.REPORT])
    model = bundle.parsed[layout.ATTRIBUTION]["model"]
    _require(
        model["report_digest"] == digest,
        f"{layout.REPORT}: digest {digest}, the answer rests on {model['report_digest']}",
    )
    outcomes_digest = sha256_bytes(bundle.raw[layout.OUTCOMES])
    _require(
        report["outcomes"] == outcomes_digest,
        f"{layout.OUTCOMES}: digest {outcomes_digest}, the report names {report['outcomes']}",
    )
    differences = check_report(report, bundle.parsed[layout.OUTCOMES])
    _require(not differences, f"{layout.REPORT}: {differences[0] if differences else ''}")
    registry = chain.contract(bundle.index["registry_address"], REGISTRY_ABI)
    base, adapter, on_chain, _ = registry.functions.models(digest_to_bytes(version["digest"])).call()
    _require(
        bytes(on_chain) == digest_to_bytes(digest),
        f"{version['name']}: the registry holds report 0x{bytes(on_chain).hex()}, not {digest}",
    )
    _require(
        bytes(base) == digest_to_bytes(version["base_digest"])
        and bytes(adapter) == digest_to_bytes(version["adapter_digest"]),
        f"{version['name']}: the registry holds another base or adapter",
    )
    return f"{digest}: {len(report['suites'])} suites recomputed from their items, as registered on chain"


def _policy(bundle: Bundle) -> str:
    """The model met its gate policy, or several people are recorded to have decided against it."""
    report, version = bundle.parsed[layout.REPORT], bundle.parsed[layout.VERSION]
    digest, of_report = sha256_bytes(bundle.raw[layout.POLICY]), sha256_bytes(bundle.raw[layout.REPORT])
    _require(
        report.get("policy_digest") == digest,
        f"{layout.POLICY}: digest {digest}, {layout.REPORT} names {report.get('policy_digest')}",
    )
    _require(
        version["policy_digest"] == digest or version["report_digest"] != of_report,
        f"{layout.POLICY}: digest {digest}, {layout.VERSION} names {version['policy_digest'] or 'none'}",
    )
    policy = GatePolicy.from_json(bundle.parsed[layout.POLICY])
    unmet = check_policy(report, policy)
    unmet += [
        f"report {failed['report_digest']} failed, and no override lifts it"
        for failed in version["failed_reports"]
        if not failed["override"]
    ]
    entry = _promotion(bundle, version["name"], of_report)
    people = distinct_people(entry["people"])
    if not unmet and entry["kind"] == "passed":
        return f"{digest}: met, every suite of {len(policy.suites)} passed; promoted by {', '.join(people)}"
    unmet = unmet or ["it was not promoted by its gate"]
    _require(
        entry["kind"] == "overridden" and (entry["report"], entry["policy"]) == (of_report, digest),
        f"{version['name']} broke its gate policy {digest}: {'; '.join(unmet)}",
    )
    _require(
        len(people) >= policy.people.override,
        f"{version['name']} broke its gate policy {digest}, and {', '.join(people)} alone overrode it, where "
        f"{policy.people.override} people are needed: {'; '.join(unmet)}",
    )
    return f"{digest}: NOT MET ({'; '.join(unmet)}), and overridden by {', '.join(people)}: {entry['reason']}"


def _promotion(bundle: Bundle, version: str, report: str) -> dict[str, Any]:
    """Returns the entry by which the version was promoted: the last one that rests on this report, else its last one.

    Raises Broken where the history is no chain of hashes, or does not have the version.
    """
    previous, found = "", None
    for number, entry in enumerate(bundle.parsed[layout.PROMOTIONS], start=1):
        _require(
            (entry["number"], entry["previous"]) == (number, previous),
            f"{layout.PROMOTIONS}: entry {number} is {entry['number']} and follows {entry['previous'] or 'nothing'}",
        )
        previous = digest_json(entry)
        # A rollback rests on the promotion that it goes back to.
        if entry["version"] == version and entry["kind"] != "rolled_back":
            found = found if found and found["report"] == report != entry["report"] else entry
    _require(found is not None, f"{layout.PROMOTIONS}: {version} was never promoted")
    assert found is not None
    return dict(found)


def _attribution(bundle: Bundle) -> str:
    record, version = bundle.parsed[layout.ATTRIBUTION], bundle.parsed[layout.VERSION]
    leaf = bundle.parsed[layout.INCLUSION]["leaf"]
    digest = sha256_bytes(bundle.raw[layout.ATTRIBUTION])
    _require(
        digest == leaf["record_digest"],
        f"{layout.ATTRIBUTION}: digest {digest}, the leaf names {leaf['record_digest']}",
    )
    _require(
        record["inference"] == bundle.index["inference"], f"{layout.ATTRIBUTION}: of {record['inference']}"
    )
    total = sum(share["ppm"] for share in record["shares"]) + record["unattributed_ppm"]
    _require(total == 1_000_000, f"{layout.ATTRIBUTION}: shares add up to {total:,} ppm")
    _require(
        record["model"]["version_digest"] == version["digest"],
        f"{layout.ATTRIBUTION}: by another model version",
    )
    return (
        f"{digest}: {len(record['shares'])} shares and {record['unattributed_ppm']:,} ppm unattributed add up"
    )


def _inclusion(bundle: Bundle, chain: Chain) -> str:
    proof = bundle.parsed[layout.INCLUSION]
    leaf, batch = proof["leaf"], proof["batch"]
    _require(
        leaf["inference"] == bundle.index["inference"], f"{layout.INCLUSION}: proves {leaf['inference']}"
    )
    _require(
        int(leaf["chain_id"]) == chain.chain_id,
        f"{layout.INCLUSION}: of chain {leaf['chain_id']}, the RPC is of chain {chain.chain_id}",
    )
    made = AttributionLeaf(
        chain_id=int(leaf["chain_id"]),
        ledger=leaf["ledger_address"],
        batch_seq=int(leaf["seq"]),
        event_index=int(leaf["event_index"]),
        inference=leaf["inference"],
        model_version_digest=leaf["model_digest"],
        report_digest=leaf["report_digest"],
        record_digest=leaf["record_digest"],
        fee_paid=int(leaf["fee"]),
    ).hash()
    _require(
        "0x" + made.hex() == proof["leaf_hash"],
        f"{layout.INCLUSION}: leaf is 0x{made.hex()}, not {proof['leaf_hash']}",
    )
    siblings = [bytes.fromhex(sibling.removeprefix("0x")) for sibling in proof["proof"]]
    root = bytes.fromhex(batch["root"].removeprefix("0x"))
    _require(
        evm_merkle.verify(root, made, siblings),
        f"{layout.INCLUSION}: the proof does not lead to {batch['root']}",
    )
    ledger = chain.contract(leaf["ledger_address"], LEDGER_ABI)
    on_chain = bytes(ledger.functions.roots(int(leaf["seq"])).call())
    _require(
        on_chain == root,
        f"batch {leaf['seq']}: the ledger holds 0x{on_chain.hex()}, the bundle {batch['root']}",
    )
    _require(
        bool(ledger.functions.verify(int(leaf["seq"]), made, siblings).call()),
        f"batch {leaf['seq']}: the contract refuses the proof",
    )
    return f"leaf 0x{made.hex()[:16]}... is event {leaf['event_index']} of batch {leaf['seq']}, verified by the contract"


def _split(bundle: Bundle) -> str:
    money, leaf = bundle.parsed[layout.SETTLEMENT], bundle.parsed[layout.INCLUSION]["leaf"]
    record = bundle.parsed[layout.ATTRIBUTION]
    _require(money["inference"] == bundle.index["inference"], f"{layout.SETTLEMENT}: of {money['inference']}")
    _require(money["fee"] == leaf["fee"], f"{layout.SETTLEMENT}: fee {money['fee']}, on chain {leaf['fee']}")
    paid = sum(int(part["amount"]) for part in money["payouts"])
    _require(
        paid + int(money["dust"]) == int(money["fee"]),
        f"{layout.SETTLEMENT}: payouts {paid} and dust {money['dust']} are not the fee {money['fee']}",
    )
    # The contributors' part goes pro rata to the shares: no part differs by more than one base unit from it.
    shares = {share["contributor"]: share["ppm"] for share in record["shares"] if share["ppm"]}
    parts = {
        part["beneficiary"]: int(part["amount"]) for part in money["payouts"] if part["kind"] == "contributor"
    }
    pool = sum(parts.values()) + sum(
        int(part["amount"]) for part in money["payouts"] if part["kind"] == "treasury"
    )
    for contributor in shares.keys() | parts.keys():
        exact = pool * shares.get(contributor, 0) / 1_000_000
        _require(
            abs(parts.get(contributor, 0) - exact) <= 1 + exact * 1e-12,
            f"{layout.SETTLEMENT}: {contributor} gets {parts.get(contributor, 0)}, its share is {exact:.0f}",
        )
    return f"fee {money['fee']} = {len(money['payouts'])} payouts + dust {money['dust']}, contributors pro rata to their shares"


def _payout(bundle: Bundle, chain: Chain) -> str:
    reward = bundle.parsed[layout.REWARD]
    _require(
        reward["address"].lower() == bundle.index["account"].lower(),
        f"{layout.REWARD}: of {reward['address']}",
    )
    _require(int(reward["chain_id"]) == chain.chain_id, f"{layout.REWARD}: of chain {reward['chain_id']}")
    leaf = RewardLeaf(
        int(reward["chain_id"]), reward["distributor_address"], reward["address"], int(reward["cumulative"])
    ).hash()
    siblings = [bytes.fromhex(sibling.removeprefix("0x")) for sibling in reward["proof"]]
    root = bytes.fromhex(reward["reward_root"]["root"].removeprefix("0x"))
    _require(
        evm_merkle.verify(root, leaf, siblings), f"{layout.REWARD}: the proof does not lead to 0x{root.hex()}"
    )
    distributor = chain.contract(reward["distributor_address"], DISTRIBUTOR_ABI)
    accepted = {
        bytes(event["args"]["root"]) for event in distributor.events.Accepted().get_logs(from_block=0)
    }
    _require(root in accepted, f"0x{root.hex()} was never accepted on chain")
    claimed = int(distributor.functions.claimed(distributor.w3.to_checksum_address(reward["address"])).call())
    _require(
        claimed >= int(reward["claimed"]),
        f"{layout.REWARD}: says {reward['claimed']} claimed, the chain {claimed}",
    )
    return f"{reward['address']} earned {reward['cumulative']} base units under an accepted root and has claimed {claimed}"
