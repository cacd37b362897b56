"""One table of what `make bench` measured, as Markdown: `python bench/table.py out/bench`.

Reads the JSON files that the benchmarks left there. A file that is missing is left out and named; one whose form has changed
is named and an error, so that the table cannot silently grow shorter.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

Row = tuple[str, str, str, str]
"""What, ours, its peer, the ratio."""


def grpc(found: Any) -> Iterator[Row]:
    """Unary calls."""
    yield (
        "unary gRPC through the whole pipeline, beside bare grpc.aio",
        f"{found['ours_calls_per_s']:,.0f} calls/s, {found['ours_server_cpu_us']:.0f} us of server CPU",
        f"{found['bare_calls_per_s']:,.0f} calls/s, {found['bare_server_cpu_us']:.0f} us",
        _interval(found["ratio"]) + f" (goal {found['goal']})",
    )


def eventlog(found: Any) -> Iterator[Row]:
    """Both logs beside kafka-python."""
    for name, of in found.items():
        log, _, size = name.partition(", ")
        if log == "kafka-python":
            continue
        peer = found[f"kafka-python, {size}"]
        for what in ("produce", "consume"):
            yield (
                f"{log} log, {what}, {size} events, beside kafka-python",
                f"{of[f'{what}_per_s']:,.0f} events/s, {of[f'{what}_cpu_us']:.0f} us of CPU",
                f"{peer[f'{what}_per_s']:,.0f} events/s, {peer[f'{what}_cpu_us']:.0f} us",
                _interval(of["ratios"][f"{what}_per_s"]),
            )


def outbox(found: Any) -> Iterator[Row]:
    """The backlog's rate, beside the same reads and deletes sent nowhere; delays from commit to effect."""
    for log, of in found["logs"].items():
        yield (
            f"PostgreSQL outbox to {log}, a backlog of {found['events']:,}",
            f"{of['events_per_s']:,.0f} events/s",
            f"{found['nowhere_events_per_s']:,.0f} events/s nowhere",
            _interval(of["ratio"]),
        )
    for log, of in found["logs"].items():
        yield (
            f"from a commit to its effect in another database by {log} ({found['singles']} events)",
            f"p50 {of['commit_to_effect_p50_ms']:.1f} ms, p99 {of['commit_to_effect_p99_ms']:.1f} ms",
            "",
            "",
        )


def answer_cost(found: Any) -> Iterator[Row]:
    """The hot path of recording."""
    peer = found["os.write of the same bytes"]
    for name in ("handed over", "encoded", "appended"):
        times = found[name]
        yield (
            f"answer's hot path: {name} ({found['event_bytes']:,} bytes)",
            f"{times['p50_us']:.1f} us median, {times['p99_us']:.1f} us p99",
            f"os.write {peer['p50_us']:.1f} us, {peer['p99_us']:.1f} us p99" if name == "appended" else "",
            f"{times['p50_us'] / peer['p50_us']:.2f}" if name == "appended" else "",
        )


def inference_isolation(found: Any) -> Iterator[Row]:
    """Kafka, attribution and chain all down, against all healthy."""
    counted = found["accounts"]
    yield (
        f"inference ({found['model']}) with Kafka, attribution and chain down, beside all healthy: tokens",
        f"{found['down_tokens_per_s']:.1f} tokens/s",
        f"{found['healthy_tokens_per_s']:.1f} tokens/s",
        _interval(found["tokens_ratio"]) + f" (at least {found['promise']})",
    )
    yield (
        "the same: p99 of the gap between two pieces of text",
        f"{found['down_gap_p99_ms']:.1f} ms",
        f"{found['healthy_gap_p99_ms']:.1f} ms",
        _interval(found["gap_p99_ratio"]) + f" (at most {2 - found['promise']:.2f})",
    )
    lost = counted["lost_in_attribution"]
    doubled = counted["doubled_in_attribution"] + counted["not_in_exactly_one_batch"]
    yield (
        f"the same: of {counted['answers']:,} answers, when all were back",
        f"{lost} lost, {doubled} doubled",
        "",
        "",
    )


def inference(found: Any) -> Iterator[Row]:
    """Serving beside PEFT."""
    for case in found:
        if case["targets"] == "all-linear":
            yield (
                f"serving, {case['batch']}, LoRA on all linear modules, beside generate and PEFT",
                f"{median(case['engine']['wall']):.0f} tokens/s",
                f"{median(case['peer']['wall']):.0f} tokens/s",
                f"{case['ratios_of_medians']['wall']:.2f} wall, {case['ratios_of_medians']['cpu']:.2f} CPU",
            )


def attribution(found: Any) -> Iterator[Row]:
    """Indexing beside autograd, one example at a time."""
    ours, peer, ratio = (
        found[name] for name in ("batched_records_per_s", "looped_records_per_s", "batched_over_looped")
    )
    yield (
        "attribution: gradients for the index, beside autograd one example at a time",
        f"{ours['wall_s']:.1f} records/s",
        f"{peer['wall_s']:.1f} records/s",
        f"{ratio['wall_s']:.2f} wall, {ratio['processor_s']:.2f} CPU",
    )
    yield "attribution: answers scored", f"{found['answers_per_s']['wall_s']:.1f} answers/s", "", ""


def seal(found: Any) -> Iterator[Row]:
    """Time and memory of sealing large Datanets."""
    for each in found:
        yield (
            f"a seal of {each['records']:,} records, {each['database']}",
            f"{each['seconds']:,.0f} s, {each['cpu_seconds']:,.0f} s of CPU, {each['memory_mb']} MB",
            "",
            "",
        )


def datanet(found: Any) -> Iterator[Row]:
    """Streams of contributions."""
    for name, of in found.items():
        if isinstance(of, dict) and "acknowledged_records_per_s" in of:
            acknowledged, published = of["acknowledged_records_per_s"], of["published_records_per_s"]
            rates = f"{acknowledged:,.0f} records/s acknowledged, {published:,.0f} published"
            yield f"contributions, {name}, {found['database']}", rates, "", ""
    waited = found["interactive"]
    yield "contribution, one at a time", f"{waited['median_ms']} ms median, {waited['p99_ms']} ms p99", "", ""


TABLES: dict[str, Callable[[Any], Iterator[Row]]] = {
    each.__name__: each
    for each in (
        grpc,
        datanet,
        seal,
        eventlog,
        outbox,
        answer_cost,
        inference_isolation,
        inference,
        attribution,
    )
}


def main(folder: Path, quick: bool) -> int:
    """Prints the table; code 1 when a file cannot be read as its benchmark's."""
    rows: list[str] = []
    missing = []
    unread = []
    for name, table in TABLES.items():
        path = folder / f"{name}.json"
        if not path.exists():
            missing.append(name)
            continue
        command = f"`scripts/bench.sh {name}`"
        try:
            rows += [f"| {' | '.join(row)} | {command} |" for row in table(json.loads(path.read_text()))]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            unread.append(f"{name} ({type(error).__name__}: {error})")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, commit {commit}.\n"
    )
    if quick:
        print("Made with --quick, which shows only that everything runs: the numbers are no measurement.\n")
    print("| what | ours | peer | ratio | command |\n|---|---|---|---|---|")
    print("\n".join(rows))
    if missing:
        print(f"\nNot measured: {', '.join(missing)}.")
    if unread:
        print(f"\nOf another form than bench/table.py reads: {', '.join(unread)}.")
    return int(bool(unread))


def _interval(ratio: Any) -> str:
    return f"{ratio['median']:.2f} [{ratio['lower']:.2f}, {ratio['upper']:.2f}], {ratio['pairs']} pairs"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), quick="--quick" in sys.argv))
