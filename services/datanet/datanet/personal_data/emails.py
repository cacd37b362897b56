"""E-mail addresses, as they are written and as people disguise them: `name [at] host [dot] org`, `name at host dot org`."""

from __future__ import annotations

import re
from functools import lru_cache

import tldextract

from datanet.personal_data.folding import FoldedText

_LOCAL = frozenset("!#$%&'*+/=?^_`{|}~.-")
_MAX_LOCAL = 64
_DOMAIN = re.compile(r"[\w.-]{4,253}")

# A marker of a disguised address, and what separates its labels. Their spaces are bounded.
_AT = re.compile(r"[\[({<]\s{0,2}(?:at|@)\s{0,2}[\])}>]\s{0,2}|\sat\s{1,2}", re.IGNORECASE)
_LABEL = re.compile(r"[^\W_](?:[\w-]{0,62})")
_DOT = re.compile(
    r"\s{0,2}[\[({<]\s{0,2}(?:dot|\.)\s{0,2}[\])}>]\s{0,2}|\s{1,2}dot\s{1,2}|\.(?=\w)", re.IGNORECASE
)
_MOST_LABELS = 8
# Ends of domains that are words of ordinary sentences: "look at the dot at the top".
_WORDS = frozenset(("am", "as", "at", "be", "by", "do", "in", "is", "it", "me", "my", "no", "so", "to", "us"))


def find(folded: FoldedText) -> int | None:
    """Returns where the first address begins, or None."""
    text = folded.text
    starts = [_plain(text.replace("%40", "@") if "%40" in text else text)]
    if folded.has("mailto:"):
        starts.append(_in_link(text))
    if folded.has("dot", "]", ")", "}", ">"):
        starts.append(_disguised(folded.text))
    return min((start for start in starts if start is not None), default=None)


_IN_LINK = re.compile(r"mailto:([\w.+%\-]{1,64}?)(?:%40|@)[\w.\-]{1,253}", re.IGNORECASE)


def _in_link(text: str) -> int | None:
    """Returns where the address of a link begins, with a sign that is written as a link writes it, and at a host of any name."""
    found = _IN_LINK.search(text)
    return found.start(1) if found else None


def _plain(text: str) -> int | None:
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain is not None and _is_domain(domain[0].rstrip(".-").split(".")):
            start = _local_start(text, at)
            if any(character.isalnum() for character in text[start:at]):
                return start
        at = text.find("@", at + 1)
    return None


def _disguised(text: str) -> int | None:
    for at in _AT.finditer(text):
        end = at.start()
        while end > max(0, at.start() - 2) and text[end - 1].isspace():
            end -= 1
        start = _local_start(text, end)
        local = text[start:end]
        if not any(character.isalnum() for character in local):
            continue
        labels, dots = _labels(text, at.end())
        if not _is_domain(labels):
            continue
        if at[0][0] in "[({<":
            return start
        # Without brackets both words must be spelled out, and the name or the end of the domain must not be prose.
        named = any(character in "._+-" or character.isdigit() for character in local.rstrip("."))
        if dots and (named or labels[-1].lower() not in _WORDS):
            return start
    return None


def _local_start(text: str, end: int) -> int:
    """Returns where the part before the sign begins. It holds no sign, so no two of them share characters."""
    start = end
    while start > max(0, end - _MAX_LOCAL) and (text[start - 1].isalnum() or text[start - 1] in _LOCAL):
        start -= 1
    return start


def _labels(text: str, at: int) -> tuple[list[str], int]:
    """Returns the labels of a domain and the number of dots that are words or in brackets."""
    labels: list[str] = []
    dots = 0
    label = _LABEL.match(text, at)
    while label is not None and len(labels) < _MOST_LABELS:
        labels.append(label[0])
        dot = _DOT.match(text, label.end())
        if dot is None:
            break
        dots += dot[0] != "."
        label = _LABEL.match(text, dot.end())
    return labels, dots


def _is_domain(labels: list[str]) -> bool:
    return len(labels) > 1 and labels[-1].lower() in _top_level() and all(len(each) <= 63 for each in labels)


@lru_cache(maxsize=1)
def _top_level() -> frozenset[str]:
    """Returns the ends of domains that exist, from the list inside the package: tldextract would download a newer one."""
    suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None).tlds
    ends = {suffix.rpartition(".")[2] for suffix in suffixes}
    return frozenset(ends | {_ascii(end) for end in ends})


def _ascii(end: str) -> str:
    return end if end.isascii() else end.encode("idna").decode()
