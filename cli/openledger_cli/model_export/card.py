"""The model card of an exported version. Each fact comes from the platform's records; what they lack is said to be missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openledger.trainer.v1 import trainer_pb2 as pb

from openledger_cli.console import printable
from openledger_cli.model_export.files import Manifest
from openledger_cli.model_export.merge import Parity
from openledger_cli.output import estimate, lower_name, moment

NOT_MEASURED = "not measured"
_NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is made of."""

    version: pb.ModelVersion
    base: Manifest
    adapter: Manifest
    training_manifest: bytes
    report: pb.EvaluationReport | None
    """The report that stands for the version; None for a version without one."""
    data_licences: Mapping[str, str]
    """Licence that contributors consented to, by Datanet; "" where the caller may not read it."""
    parity: Parity | None
    """Of a merged model; None for an adapter."""
    with_base: bool
    """Whether the folder holds the base beside the adapter."""


def text(facts: Facts) -> str:
    """Returns the card in Markdown, with Hugging Face's block of metadata first. The same version gives the same bytes."""
    version = facts.version
    parts = [
        _metadata(facts),
        f"# {version.name}",
        _sentence(version, facts),
        "## Use\n\n" + _use(facts),
        "## Identity\n\n" + _identity(facts),
        "## Purpose\n\n" + (_quoted(version.intent.purpose) or f"{_NOT_STATED.capitalize()}."),
        "## Training\n\n" + _training(facts),
        "## Evaluation\n\n" + _evaluation(facts),
        *(["## Merging\n\n" + _merging(facts.parity)] if facts.parity else []),
        "## Licence\n\n" + _licence(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _sentence(version: pb.ModelVersion, facts: Facts) -> str:
    """Says in a sentence what the folder holds."""
    held = "The base with the adapter merged into its weights" if facts.parity else "A LoRA adapter"
    return f"{held}: version `{version.name}` of an OpenLedger platform, made by `{version.training_run}`."


def _metadata(facts: Facts) -> str:
    """No `base_model` and no `license`: they name entries of the Hugging Face hub and its list, which no record here does."""
    library = "transformers" if facts.parity else "peft"
    return f"---\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- openledger\n- lora\n---"


def _use(facts: Facts) -> str:
    if facts.parity:
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        ]
    else:
        base = "FOLDER/base" if facts.with_base else "FOLDER OF THE BASE"
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'base = AutoModelForCausalLM.from_pretrained("{base}")',
            'model = PeftModel.from_pretrained(base, "FOLDER")',
            f'tokenizer = AutoTokenizer.from_pretrained("{base}")',
        ]
    found = "```python\n" + "\n".join(lines) + "\n```"
    if not facts.parity and not facts.with_base:
        found += (
            f"\n\nThe base is the one with the digest `{facts.version.base_digest}`, whose files are below:"
            " the adapter fits no other. `openledger model export --with-base` writes it beside the adapter."
        )
    templates = {
        (each["prompt"], each["completion"]) for each in json.loads(facts.training_manifest)["snapshots"]
    }
    found += "\n\nThe model was tuned on, and measured with, this text; a question in another form may be answered badly.\n"
    for prompt, completion in sorted(templates):
        found += f"\n- prompt: {_code(prompt)}, answer: {_code(completion)}, then the end of sequence"
    return found


def _identity(facts: Facts) -> str:
    version, base = facts.version, facts.base.content
    return _table(
        ("what", "value"),
        [
            ("version", f"`{version.name}`, digest `{version.digest}`"),
            ("state when it was exported", lower_name(pb.ModelVersionState.Name(version.state), "MODEL_VERSION_STATE_")),
            ("base", f"`{version.base_model}` ({_stated(base.get('name'))}), digest `{version.base_digest}`"),
            ("base from", _stated(base.get("source"))),
            *(("base file", f"`{name}` `{digest}`") for name, digest in sorted(facts.base.files.items())),
            ("adapter", f"digest `{version.adapter_digest}`"),
            *(("adapter file", f"`{name}` `{digest}`") for name, digest in sorted(facts.adapter.files.items())),
            ("tuned from", f"`{version.parent}`" if version.parent else "the base"),
            ("training run", f"`{version.training_run}`"),
            ("owner", _stated(version.owner)),
            ("computed on", _stated(version.compute)),
        ],
    )  # fmt: skip


def _training(facts: Facts) -> str:
    version = facts.version
    snapshots = _table(
        ("snapshot", "root", "weight"),
        [(f"`{each.snapshot}`", f"`{each.root}`", f"{each.weight or 1:g}") for each in version.snapshots],
    )
    manifest = json.loads(facts.training_manifest)
    seen = sum(len(each["records"]) for each in manifest["snapshots"])
    spec = _table(
        ("parameter", "value", "set by"),
        [(each.parameter, each.value, each.origin) for each in version.values],
    )
    packages = ", ".join(f"{name} {number}" for name, number in sorted(version.packages.items()))
    return (
        f"{snapshots}\n\n{seen:,} distinct records were seen. `training_manifest.json` names each and how often; its digest is"
        f" `{version.training_manifest_digest}`.\n\n{spec}\n\nPackages: {_cell(packages) or _NOT_STATED}."
    )


def _evaluation(facts: Facts) -> str:
    version, report = facts.version, facts.report
    if report is None:
        return (
            f"{NOT_MEASURED.capitalize()}: the version has no evaluation report, and so no verdict of a gate."
        )
    policy = " ".join(
        part
        for part in (version.gate_policy and f"`{version.gate_policy}`,", f"digest `{report.policy_digest}`")
        if part
    )
    parts = [
        f"Verdict of the gate: **{_verdict(report.verdict)}**, by the report `{report.digest}` under the policy {policy},"
        f" computed on {_stated(report.compute)}. Base and tuned model answered the same items; intervals are of 95%.",
        _table(
            ("suite", "base", "tuned", "difference", "margin", "verdict"),
            [
                (each.suite, estimate(each.base), estimate(each.tuned), estimate(each.difference),
                 f"{each.margin:g}" if each.gated else "gain", _verdict(each.verdict))
                for each in report.suites
            ] + [(suite, *[NOT_MEASURED] * 5) for suite in report.missing_suites],
        ),
        "\n".join(f"- {_cell(reason)}" for reason in report.reasons),
        "\n".join(
            f"- The report `{each.report_digest}` failed; "
            + (f"`{each.override}` lifts it." if each.override else "nothing lifts it.")
            for each in version.failed_reports
        ),
        "\n".join(
            f"- {moment(each.change_time)}: {lower_name(pb.ModelVersionState.Name(each.state), 'MODEL_VERSION_STATE_')} by"
            f" {_cell(each.principal)}, {_cell(each.reason)}"
            for each in version.history
        ),
        f"{NOT_MEASURED.capitalize()}: whatever the table does not name, among it bias, harmful answers and other languages.",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _merging(parity: Parity) -> str:
    return (
        f"The weights are stored as {parity.number_type}. They were compared with base and adapter, in float32, at"
        f" {parity.positions} positions of fixed prompts. Merging changed {parity.changed:.2g} of the adapter's effect on the"
        f" logits (root mean square; tolerance {parity.tolerance:g}), and a single logit by at most"
        f" {parity.largest_difference:.2g}. KL is {parity.mean_kl:.2g} nats a position, and the most probable token is the same"
        f" at {parity.same_first_token} positions. The evaluation above is of base and adapter, not of the merged weights."
    )


def _licence(facts: Facts) -> str:
    rows = [("base", _stated(facts.base.content.get("licence")))]
    rows += [(f"data of `{name}`", _stated(licence)) for name, licence in sorted(facts.data_licences.items())]
    rows.append(("merged model" if facts.parity else "adapter", f"{_NOT_STATED}: the platform records none"))
    return _table(("of", "licence"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: str) -> str:
    """Text that stays in its cell: records and names are written by strangers."""
    return printable(" ".join(value.split())).replace("|", "\\|").replace("<", "&lt;")


def _quoted(value: str) -> str:
    return "\n".join(f"> {_cell(line)}" for line in value.splitlines())


def _code(value: str) -> str:
    """A template as a JSON string in a code span that its backticks do not end."""
    shown = json.dumps(value, ensure_ascii=False)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence} {printable(shown)} {fence}"


def _stated(value: Any) -> str:
    return str(value) if value else _NOT_STATED


def _verdict(verdict: pb.Verdict.ValueType) -> str:
    return lower_name(pb.Verdict.Name(verdict), "VERDICT_")
