"""Tokens a second of the serving engine beside PEFT's own mixed batches, on the same model in one run.

    python bench/inference_bench.py [--model tiny|smollm2] [--rows 8] [--tokens 32] [--repeats 3] [--json
    FILE]

Each case answers the same prompts greedily to the same length, without end tokens. The engine runs as in the
service: queue, scheduler, streaming text and all. Its peer is transformers' `generate`, for adapters with
PEFT's `adapter_names`, which is how a mixed batch is served without this engine. Repeats of all cases are
interleaved, so that a machine that slows down slows all of them; the median and the range are shown, and
ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from inference.answer import Answer, Listener, Request
from inference.base import load_base
from inference.catalogue import Served
from inference.decoder import Decoder
from inference.engine import Engine, Limits
from inference.sampling import Sampling
from modelkit import base_model
from modelkit.adapter import ALL_LINEAR
from modelkit.weights import adapter, loading
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore

PROMPT = (
    "The group has used spear phishing messages with malicious attachments to gain access. Tactic number {}:"
)
TARGETS = {"q,v": ["q_proj", "v_proj"], "all-linear": list(ALL_LINEAR)}
ADAPTERS = 4
CLOCKS = ("wall", "cpu")


class Ends:
    """A listener that only waits for the ends of answers."""

    def __init__(self) -> None:
        self.ends: queue.SimpleQueue[Answer | DomainError] = queue.SimpleQueue()

    def text(self, piece: str) -> None: ...

    def finished(self, answer: Answer) -> None:
        self.ends.put(answer)

    def failed(self, error: DomainError) -> None:
        self.ends.put(error)


def tell(answer: Answer, listener: Listener) -> None:
    listener.finished(answer)


class Bench:
    """One base model twice: under the engine, and under PEFT with the same four adapters."""

    def __init__(self, model: str, targets: Sequence[str], rows: int, tokens: int, folder: Path) -> None:
        self._rows, self._tokens = rows, tokens
        store = ObjectStore(folder / "objects")
        base = load_base("tiny" if model == "tiny" else "smollm2-135m-instruct", store, folder / "cache")
        self.compute = base.compute
        self._base = base
        self._digests = [self._adapter(seed, targets, folder, store) for seed in range(ADAPTERS)]
        peers = [adapter.fetch(digest, store, folder / "cache", base.digest) for digest in self._digests]
        self._plain = self._load(store, folder)
        self._peft = PeftModel.from_pretrained(
            self._load(store, folder), str(peers[0]), adapter_name="a0"
        ).eval()
        for index, peer in enumerate(peers[1:], start=1):
            self._peft.load_adapter(str(peer), adapter_name=f"a{index}")

        def fetch(digest: str) -> adapter.Adapter:
            return adapter.read(adapter.fetch(digest, store, folder / "cache", base.digest))

        decoder = Decoder(base.model, ADAPTERS)
        limits = Limits(max_sequences=rows, max_queue=rows, max_prefill_tokens=1 << 20)
        self._engine = Engine(
            decoder=decoder,
            tokenizer=base.tokenizer,
            end_tokens=(),
            slots=ADAPTERS,
            limits=limits,
            fetch=fetch,
            record=tell,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._engine.run, args=(self._stop,))
        self._thread.start()
        texts = [PROMPT.format(row) for row in range(rows)]
        self._prompts = [tuple(base.tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def engine(self, adapters: Sequence[int | None]) -> list[tuple[int, ...]]:
        """The rows' answers by the engine; row i uses adapter `adapters[i]`."""
        ends = Ends()
        for row, (prompt, used) in enumerate(zip(self._prompts, adapters, strict=True)):
            digest = "" if used is None else self._digests[used]
            self._engine.submit(
                Request(
                    inference=str(row),
                    served=Served(name="bench", base_digest=self._base.digest, adapter_digest=digest),
                    prompt="",
                    prompt_tokens=prompt,
                    sampling=Sampling(max_output_tokens=self._tokens),
                    principal="bench",
                ),
                ends,
            )
        answers = [ends.ends.get() for _ in adapters]
        assert all(isinstance(answer, Answer) for answer in answers), answers
        found = {answer.request.inference: answer for answer in answers if isinstance(answer, Answer)}
        return [found[str(row)].output_tokens for row in range(len(adapters))]

    def peer(self, adapters: Sequence[int | None]) -> list[tuple[int, ...]]:
        """The same by `generate`."""
        longest = max(map(len, self._prompts))
        ids = torch.zeros(len(adapters), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self._prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        arguments: dict[str, Any] = {
            "max_new_tokens": self._tokens,
            "min_new_tokens": self._tokens,
            "do_sample": False,
        }
        model: Any = self._plain
        if any(used is not None for used in adapters):
            model = self._peft
            arguments["adapter_names"] = ["__base__" if used is None else f"a{used}" for used in adapters]
        device = self._plain.device
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                pad_token_id=0,
                eos_token_id=None,
                **arguments,
            )
        return [tuple(row) for row in output[:, longest:].tolist()]

    def _load(self, store: ObjectStore, folder: Path) -> PreTrainedModel:
        model, _ = loading.load(
            base_model.materialise(self._base.digest, store, folder / "cache"), self._base.compute
        )
        return model

    def _adapter(self, seed: int, targets: Sequence[str], folder: Path, store: ObjectStore) -> str:
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=list(targets))
        tuned = get_peft_model(self._load(store, folder), config)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        tuned.save_pretrained(str(folder / f"peft-{seed}"))
        return adapter.publish(folder / f"peft-{seed}", self._base.digest, store)


@dataclass
class Speeds:
    """Tokens a second of one case, for each repeat."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(cases: dict[str, Callable[[], Any]], tokens: int, repeats: int) -> dict[str, Speeds]:
    """Speeds of each case; a first, unmeasured round warms caches and loads adapters."""
    speeds = {name: Speeds() for name in cases}
    for repeat in range(repeats + 1):
        for name, run in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if repeat:
                speeds[name].wall.append(tokens / (time.perf_counter() - wall))
                speeds[name].cpu.append(tokens / (time.process_time() - cpu))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["tiny", "smollm2"], default="smollm2")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a quick check, not a measurement: the tiny model, 8 tokens, 2 repeats",
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.model, options.tokens, options.repeats = "tiny", 8, 2
    results = []
    for label, targets in TARGETS.items():
        with tempfile.TemporaryDirectory() as name:
            bench = Bench(options.model, targets, options.rows, options.tokens, Path(name))
            batches: dict[str, list[int | None]] = {
                "base": [None] * options.rows,
                "one adapter": [0] * options.rows,
                "4 adapters": [row % ADAPTERS for row in range(options.rows)],
                "4 adapters and base": [
                    row % (ADAPTERS + 1) - 1 if row % (ADAPTERS + 1) else None for row in range(options.rows)
                ],
            }
            cases: dict[str, Callable[[], Any]] = {}
            same = {}
            for batch, rows in batches.items():
                cases[f"engine, {batch}"] = lambda rows=rows, bench=bench: bench.engine(rows)
                cases[f"peer, {batch}"] = lambda rows=rows, bench=bench: bench.peer(rows)
                same[batch] = sum(a == b for a, b in zip(bench.engine(rows), bench.peer(rows), strict=True))
            speeds = measure(cases, options.rows * options.tokens, options.repeats)
            bench.close()
            print(
                f"\n{options.model}, LoRA r16 on {label}, {options.rows} rows x {options.tokens} tokens,"
                f" {bench.compute.device}/{bench.compute.dtype}, {bench.compute.threads} threads"
            )
            for batch in batches:
                ours, theirs = speeds[f"engine, {batch}"], speeds[f"peer, {batch}"]
                ratios = {
                    clock: median(getattr(ours, clock)) / median(getattr(theirs, clock)) for clock in CLOCKS
                }
                print(
                    f"  {batch:20} engine {_shown(ours)}  peer {_shown(theirs)}"
                    f"  ratio {ratios['wall']:.2f} wall, {ratios['cpu']:.2f} CPU"
                    f"  same answers {same[batch]}/{options.rows}"
                )
                results.append(
                    {
                        "targets": label,
                        "batch": batch,
                        "engine": asdict(ours),
                        "peer": asdict(theirs),
                        "ratios_of_medians": ratios,
                        "same_answers": same[batch],
                        "rows": options.rows,
                        "tokens": options.tokens,
                        "compute": bench.compute.to_json(),
                    }
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _shown(speeds: Speeds) -> str:
    low, high = min(speeds.wall), max(speeds.wall)
    return f"{median(speeds.wall):6.1f} ({low:.1f}-{high:.1f}) tok/s, {median(speeds.cpu):6.1f} tok/CPU s"


if __name__ == "__main__":
    main()
