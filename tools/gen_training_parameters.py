"""Generates what states the ranges of a training spec from its guide (openledger_client/training_parameters.py): the rules in
proto/openledger/trainer/v1/trainer.proto, and the table in docs/training.md.

    python tools/gen_training_parameters.py            writes both; then: make proto
    python tools/gen_training_parameters.py --check    writes nothing; fails, naming the file, when one is not what it
    would write
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from openledger_client.training_parameters import GUIDE, Parameter

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto" / "openledger" / "trainer" / "v1" / "trainer.proto"
PAGE = ROOT / "docs" / "training.md"

_MESSAGES = {"TrainingSpec": "", "RehearsalSpec": "rehearsal."}
_NUMBER = re.compile(
    r"^  optional (double|int32|uint64) (\w+) = (\d+)(?: \[.*?\])?;$", re.MULTILINE | re.DOTALL
)
_BEGIN, _END = "<!-- parameters: begin -->", "<!-- parameters: end -->"


def proto(text: str) -> str:
    """Returns the proto with the rule of each number made from the guide."""
    for message, prefix in _MESSAGES.items():
        body = re.search(rf"^message {message} {{\n.*?^}}$", text, re.MULTILINE | re.DOTALL)
        assert body is not None, f"{PROTO} has no message {message}"
        ruled = _NUMBER.sub(lambda field, prefix=prefix: _field(field, prefix), body[0])
        text = text.replace(body[0], ruled)
    return text


def page(text: str) -> str:
    """Returns the page with the table made from the guide."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    header = (
        "| value | what it is | range | not set | too small | too large | usual | evidence |\n"
        + "|---" * 8
        + "|"
    )
    rows = "\n".join(_row(parameter) for parameter in GUIDE.values())
    return f"{before}{_BEGIN}\n{header}\n{rows}\n{_END}{after}"


def _field(field: re.Match[str], prefix: str) -> str:
    kind, name, number = field.groups()
    rules = ",\n".join(_rules(GUIDE[f"{prefix}{name}"], kind))
    return f"  optional {kind} {name} = {number}" + (f" [\n{rules}\n  ];" if rules else ";")


def _rules(parameter: Parameter, kind: str) -> Iterator[str]:
    """One for each bound, so that a client reads the sentence of the side that it is on."""
    number = float if kind == "double" else int
    if parameter.least is not None and not (kind == "uint64" and parameter.least == 0):
        sign = ">" if parameter.least_excluded else ">="
        yield _rule(f"{parameter.name}.least", parameter.too_small, f"this {sign} {number(parameter.least)}")
    if parameter.most is not None:
        sign = "<" if parameter.most_excluded else "<="
        yield _rule(f"{parameter.name}.most", parameter.too_large, f"this {sign} {number(parameter.most)}")


def _rule(name: str, message: str, expression: str) -> str:
    return f"""    (buf.validate.field).cel = {{
      id: "training_spec.{name}"
      message: "{message}"
      expression: "{expression}"
    }}"""


def _row(parameter: Parameter) -> str:
    cells = (
        f"`{parameter.name}`",
        parameter.words,
        f"{parameter.range} {parameter.unit}".strip(),
        parameter.default,
        parameter.below,
        parameter.above or "-",
        parameter.advice,
        parameter.evidence,
    )
    return f"| {' | '.join(cells)} |"


def stale(path: Path, generate: Callable[[str], str]) -> bool:
    """Returns whether a file is not what the guide makes of it."""
    text = path.read_text()
    return generate(text) != text


def main() -> int:
    """Writes or checks both files. Returns the exit status."""
    files = ((PROTO, proto), (PAGE, page))
    if "--check" in sys.argv[1:]:
        old = [path for path, generate in files if stale(path, generate)]
        for path in old:
            print(
                f"{path.relative_to(ROOT)} is not what the guide says: run python tools/gen_training_parameters.py"
            )
        return 1 if old else 0
    for path, generate in files:
        path.write_text(generate(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
