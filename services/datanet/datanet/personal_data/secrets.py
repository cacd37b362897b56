"""API keys, private keys, tokens and passwords: what lets its finder act as someone else."""

from __future__ import annotations

import re
from collections.abc import Callable

from datanet.personal_data.folding import FoldedText

# Keys that say by their first characters what they are, as their issuers document them: what they begin with, and the rest.
_ISSUED = {
    **dict.fromkeys(("AKIA", "ASIA", "ABIA", "ACCA"), re.compile(r"[A-Z0-9]{16}(?!\w)")),
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hf_", "npm_"), re.compile(r"[A-Za-z0-9]{30}")),
    **dict.fromkeys(
        ("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xapp-"), re.compile(r"[\w\-]{20}")
    ),
    **dict.fromkeys(("sk_live_", "sk_test_", "rk_live_", "rk_test_"), re.compile(r"[A-Za-z0-9]{16}")),
    **dict.fromkeys(("glpat-", "ya29.", "GOCSPX-", "dckr_pat_"), re.compile(r"[\w\-]{20}")),
    **dict.fromkeys(("shpat_", "shpss_", "shpca_", "shppa_", "dop_v1_"), re.compile(r"[A-Fa-f0-9]{32}")),
    "AIza": re.compile(r"[\w\-]{30}"),
    "github_pat_": re.compile(r"\w{40}"),
    "pypi-AgE": re.compile(r"[\w\-]{30}"),
    "SG.": re.compile(r"[\w\-]{16,40}\.[\w\-]{16}"),
    "whsec_": re.compile(r"[A-Za-z0-9+/]{24}"),
}
_JWT = re.compile(r"[\w\-]{8,2048}\.eyJ[\w\-]{5,4096}\.[\w\-]{5}")
_SK = re.compile(r"[\w\-]{20,200}")

_KEY_END = "PRIVATE KEY"
_KEY_HEAD = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}$")
_KEY_BODY = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{16}")
_KEY_BODY_CHARS = 160
"""How far after its heading a key's own characters may begin: headers of an encrypted key stand between."""

_NAMES = ("password", "passwd", "passphrase", "pwd", "secret", "token", "key")
_NAMED = re.compile(
    r"(?:password|passwd|passphrase|pwd|secret|token|(?:api|access|account|auth)[_\- ]?key)"
    r"[\"']?\s{0,3}(?:=>|:=|[:=])\s{0,3}[\"'`]?([^\s\"'`,;<>]{8,200})"
)
# `scheme://user:password@host`. A password begins only after a scheme's `//`, so no two starts read the same characters.
_IN_ADDRESS = re.compile(r"[^\s/:@?#\"'<>]{1,64}:([^\s/@\"'<>]{3,128})@[\w\[]")
_BEARER = re.compile(r"\b(?:bearer|basic|token)\s{1,3}([\w\-.~+/=]{20,500})")
_NAMED_KEY = re.compile(
    r"\b(?:(?:private|secret|signing|encryption|wallet)[_\- ]?key|seed|mnemonic)\b[^\n0-9]{0,20}?"
    r"\b(?:0x)?[0-9a-f]{64}(?![0-9a-z])"
)
_PLACEHOLDERS = re.compile(r"\$|\{|\*\*|xxx|your|example|change|placeholder|redacted|\.\.\.", re.IGNORECASE)


def find(folded: FoldedText) -> int | None:
    """Returns where the first secret begins, or None."""
    text = folded.text
    starts = [_begun(text, prefix, rest) for prefix, rest in _ISSUED.items()]
    starts += [_begun(text, "eyJ", _JWT), _begun(text, "sk-", _SK, _is_mixed), _private_key(text)]
    if ("=" in text or ":" in text) and folded.has(*_NAMES):
        starts.append(_named(folded))
    if "://" in text:
        starts.append(_in_address(text))
    if folded.has("bearer", "authorization"):
        starts.append(_bearer(folded))
    if folded.has("key", "seed", "mnemonic"):
        key = _NAMED_KEY.search(folded.lower)
        starts.append(key.start() if key else None)
    return min((start for start in starts if start is not None), default=None)


def _begun(
    text: str, prefix: str, rest: re.Pattern[str], accepts: Callable[[str], bool] = lambda key: True
) -> int | None:
    """Returns where the first key of this form begins.

    No character of a key stands before it, so no two starts read the same characters.
    """
    at = text.find(prefix)
    while at >= 0:
        before = text[at - 1 : at]
        if not (before.isalnum() or before in ("_", "-")):
            key = rest.match(text, at + len(prefix))
            if key is not None and accepts(key[0]):
                return at
        at = text.find(prefix, at + 1)
    return None


def _private_key(text: str) -> int | None:
    """Returns where a key begins. Its heading alone is no secret: descriptions of malware quote it."""
    at = text.find(_KEY_END)
    while at >= 0:
        head = _KEY_HEAD.search(text, max(0, at - 45), at)
        body = at + len(_KEY_END)
        if head is not None and _KEY_BODY.search(text, body, body + _KEY_BODY_CHARS):
            return head.start()
        at = text.find(_KEY_END, at + 1)
    return None


def _named(folded: FoldedText) -> int | None:
    """Returns where a name such as `password` begins that is given a value only a machine or a careful person chooses."""
    for match in _NAMED.finditer(folded.lower):
        value = folded.text[match.start(1) : match.end(1)]
        if _is_mixed(value) and any(map(str.isdigit, value)) and not _PLACEHOLDERS.search(value):
            return match.start()
    return None


def _in_address(text: str) -> int | None:
    """Returns where the name and password of a web address begin."""
    at = text.find("://")
    while at >= 0:
        found = _IN_ADDRESS.match(text, at + 3)
        if found is not None and not _PLACEHOLDERS.search(found[1]):
            return at + 3
        at = text.find("://", at + 3)
    return None


def _bearer(folded: FoldedText) -> int | None:
    """Returns where the credentials of an Authorization header begin: what a machine made has digits."""
    for match in _BEARER.finditer(folded.lower):
        value = folded.text[match.start(1) : match.end(1)]
        if any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and not _PLACEHOLDERS.search(value):
            return match.start()
    return None


def _is_mixed(value: str) -> bool:
    """Returns whether at least three of lower case, upper case, digits and signs occur."""
    kinds = {
        "a" if each.islower() else "A" if each.isupper() else "0" if each.isdigit() else "#" for each in value
    }
    return len(kinds) >= 3
