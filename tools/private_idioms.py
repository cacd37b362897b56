"""Words that only this project used for things the field has names for, and what to write instead.

`measure_style.py` counts them. A rule says where a word is an idiom and where it is ordinary English:

- `prose` is searched in comments, docstrings, strings and Markdown;
- `name` is searched in an identifier split into lower-case words ("toldBy" and "told_by" read "told by");
- `exact` holds identifiers that are idioms only as a whole, because their parts are ordinary words;
- `within` limits a rule to some folders, where the word had its private meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Idiom:
    """One private word and its replacement."""

    word: str
    use: str
    prose: str = ""
    name: str = ""
    exact: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

    def in_prose(self, text: str) -> list[re.Match[str]]:
        """Returns each use of the word in a text."""
        return list(re.finditer(rf"(?i)\b(?:{self.prose})\b", text)) if self.prose else []

    def in_name(self, identifier: str, words: str) -> bool:
        """Returns whether an identifier, of these words, uses the word."""
        if identifier in self.exact:
            return True
        return bool(self.name) and re.search(rf"\b(?:{self.name})\b", words) is not None

    def applies_to(self, path: str) -> bool:
        """Returns whether the rule covers a file."""
        return not self.within or path.startswith(self.within)


def _both(word: str, use: str, pattern: str) -> Idiom:
    return Idiom(word=word, use=use, prose=pattern, name=pattern)


IDIOMS: tuple[Idiom, ...] = (
    _both("telling", "run, demo run", "tellings?"),
    _both("told", "published, emitted, reported, notified", "told"),
    # "tells apart" and "tells a from b" are ordinary; `file.tell()` is Python's.
    Idiom(
        word="tells", use="publishes, reports, notifies", name="tells",
        prose=r"tells?(?!\(| \w+(?: \w+)? (?:apart|from)| apart)",
    ),
    _both("wanted", "needed, required", "wanted"),
    # A file lives somewhere; "lifetime" and "lifecycle" are other words.
    Idiom(
        word="life", use="process, process lifetime, restart", name="life|lives",
        prose=r"life(?! ?cycle| time)|lives(?! (?:in|at|on|under|outside|next|here|there|for|only|as|with)\b)",
    ),
    _both("door", "endpoint, API, HTTP server", "doors?"),
    # "room for", "no room", "has room" speak of capacity.
    Idiom(
        word="room", use="module, package, layout", name="rooms",
        prose="rooms|" + "".join(f"(?<!{w} )" for w in ("no", "more", "has", "have", "enough", "make", "makes"))
        + "room(?! for| left| to | below| in )",
    ),
    Idiom(word="house", use="codebase, architecture", name="house", prose="(?<!in-)houses?"),
    _both("mend", "fix, repair, recover", "mend(?:s|ed|ing)?"),
    _both("anew", "again, from scratch", "anew"),
    # "away from", "right away", "throws away" and the like are ordinary.
    Idiom(
        word="away", use="is down, is unreachable, outage", name="(?<!right )(?<!take )(?<!throw )(?<!give )away",
        prose="(?:is|are|was|were|be|been|being|stays?|stayed|while|when|goes|went|gone|go|long|one|or|and|not|so)"
        " away(?! from)",
    ),
    _both("stands beside", "next to, compared with (say the relation)", r"(?:stands?|standing|stood) beside|ha(?:s|ve|d) beside"),
    # "stands in for" is ordinary.
    Idiom(word="stands in", use="is in, is written in", prose="stands? in(?! for)|stood in(?! for)"),
    Idiom(
        word="coming-by", use="hit (a crash point is hit N times)",
        prose="crash places?|comings?-by|(?:comes|came|coming) by",
    ),
    Idiom(word="place", use="crash point", name="places?", within=("tests/crash/", "libs/servicekit/servicekit/crash")),
    Idiom(
        word="Question, Row, Reception, Ticket", use="request, sequence, scheduler, request handle (vLLM's words)",
        name="questions?|receptions?|tickets?", exact=("Row", "Rows"), prose="receptions?|tickets?",
        within=("services/inference/", "bench/inference", "bench/serving"),
    ),
    Idiom(word="_walk", use="training loop, train_loop", exact=("_walk",)),
    _both("fate", "orphan watchdog", "fates?"),
    Idiom(word="Work", use="job handler", exact=("Work", "Works")),
    Idiom(word="Places, Inlet", use="source, location", exact=("Places", "Place"), name="inlets?", prose="inlets?"),
    _both("rubbish", "low quality, gibberish (rule id low_quality)", "rubbish"),
    # "looks up", "look like" and "looks for" are ordinary; "a look" is not.
    Idiom(
        word="look", use="poll, iteration", name="looks?(?! up| like)|looked",
        prose=r"(?:an?|one|each|every|last|next|first|per|between|two|of) looks?(?! (?:at|up|like|for))|look_failures",
    ),
    _both("whoever", "the role: client, caller, operator, contributor", "whoever|whomever"),
    Idiom(word="whom", use="the role", prose="whom"),
    Idiom(word="those who", use="the role", prose="those who"),
    _both("nobody", "anyone, no one in particular; recorded: unattributed", "nobody"),
    Idiom(
        word="goes on", use="continues, resumes", name="goes on|went on|gone on|going on",
        prose="(?:goes|gone|went|go|going) on(?!ce|-| to| the | a | its | with the)",
    ),
    Idiom(
        word="as it came, at hand, by right", use="say it literally",
        prose=r"as (?:it|they) came|(?:at|to) hand|in hand|by rights?(?!-)", name="by right|as it came|at hand",
    ),
    # The same kind, found in the tree beyond the glossary's list.
    Idiom(word="heard", use="received, was notified", prose="heard|hears?(?! from)", name="heard|hears?"),
    Idiom(word="habit", use="command", prose="habits?", name="habits?"),
)  # fmt: skip
