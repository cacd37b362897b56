"""What `measure_style.py` counts: words, private idioms, calls with many positional arguments, sizes."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from private_idioms import IDIOMS, Idiom

SHIPPED = ("libs/", "services/", "cli/", "ops/", "examples/")
VISIBLE = ("string", "help", "proto", "column", "metric")
_WORD = re.compile(r"[A-Za-z][a-z]*(?:'[a-z]+)?")
_ANY = re.compile(r"(?i)\b(?:" + "|".join(idiom.prose for idiom in IDIOMS if idiom.prose) + r")\b")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One use of a private idiom."""

    path: str
    line: int
    kind: str
    word: str
    text: str
    use: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind}: {self.text!r} -> {self.use}"


@dataclass
class Measure:
    """What was counted."""

    words: Counter[str] = field(default_factory=Counter)
    hits: list[Hit] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)
    files: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)

    def prose(self, path: str, kind: str, text: str, line: int) -> None:
        """Counts the words and idioms of a text that begins at a line."""
        self.words[kind] += len(_WORD.findall(text))
        flat = re.sub(r"\s", " ", text)
        if not _ANY.search(flat):
            return
        for idiom in IDIOMS:
            if not idiom.applies_to(path):
                continue
            for match in idiom.in_prose(flat):
                at = line + text.count("\n", 0, match.start())
                self._hit(idiom, match.group(), path=path, line=at, kind=kind)

    def identifier(self, path: str, kind: str, name: str, line: int) -> None:
        """Counts the words and idioms of a name."""
        words, idioms = _judged(name)
        self.words[kind] += words
        for idiom in idioms:
            if idiom.applies_to(path):
                self._hit(idiom, name, path=path, line=line, kind=kind)

    def _hit(self, idiom: Idiom, text: str, *, path: str, line: int, kind: str) -> None:
        self.hits.append(Hit(path=path, line=line, kind=kind, word=idiom.word, text=text, use=idiom.use))

    def rate(self, kinds: Iterable[str]) -> float:
        """Returns idioms per 1,000 words of these kinds of text."""
        kinds = tuple(kinds)
        words = sum(self.words[kind] for kind in kinds)
        return 1000 * sum(hit.kind in kinds for hit in self.hits) / words if words else 0.0

    def visible(self) -> list[Hit]:
        """Returns the idioms that a user can see."""
        return [hit for hit in self.hits if hit.kind in VISIBLE]

    def positional_rate(self, shipped: bool = True) -> float:
        """Returns calls with many positional arguments per 1,000 lines of shipped code, or of all code."""
        calls = [call for call in self.positional if not shipped or is_shipped(call)]
        lines = self.lines["shipped"] if shipped else self.lines.total()
        return 1000 * len(calls) / lines if lines else 0.0

    def table(self) -> dict[str, str]:
        """Returns the report: what was measured, with its value."""
        code = ("identifier", "comment", "docstring", "string", "test string", "help", "column", "metric")
        visible = Counter(hit.kind for hit in self.visible())
        sizes = {"file": self.files, "function": self.functions}
        return {
            "per 1,000 words, code": f"{self.rate(code):.2f}",
            "per 1,000 words, Markdown": f"{self.rate(['markdown']):.2f}",
            **{f"  of {kind}": f"{self.rate([kind]):.2f}" for kind in code[:4]},
            "in what a user sees": str(visible.total()),
            **{f"  in {kind}": str(visible[kind]) for kind in VISIBLE},
            "positional calls per kLoC": f"{self.positional_rate():.2f}",
            "  tests and benchmarks included": f"{self.positional_rate(shipped=False):.2f}",
            "kLoC shipped": f"{self.lines['shipped'] / 1000:.1f}",
            "kLoC of tests, benchmarks, tools": f"{self.lines['other'] / 1000:.1f}",
            **{f"{kind}, median / 90th / longest": _spread(values) for kind, values in sizes.items()},
        }  # fmt: skip


def _spread(values: list[int]) -> str:
    ordered = sorted(values) or [0]
    return f"{statistics.median(ordered):.0f} / {ordered[int(0.9 * (len(ordered) - 1))]} / {ordered[-1]}"


@cache
def _judged(name: str) -> tuple[int, tuple[Idiom, ...]]:
    words = split(name)
    return len(words), tuple(idiom for idiom in IDIOMS if idiom.in_name(name, " ".join(words)))


def split(name: str) -> list[str]:
    """Returns the lower-case words of an identifier."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def is_shipped(path: str) -> bool:
    """Returns whether a Python file is part of the product: no test, no benchmark, no tool."""
    return path.startswith(SHIPPED) and "/tests/" not in path and "conftest.py" not in path
