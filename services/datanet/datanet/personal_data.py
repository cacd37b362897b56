"""Personal data in a text, found by patterns and checksums; no model is loaded and nothing is fetched."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from datanet.contribution import Rejection

VERSION = 1


@contextlib.contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Imports inside behave as if these optional modules were not installed.

    presidio imports spaCy and transformers whenever they can be imported, and they import torch: 14 s for
    recognisers that are regular expressions. Without them it takes 2 s.
    """
    missing = object()
    before = {name: sys.modules.get(name, missing) for name in modules}
    sys.modules.update(dict.fromkeys(modules))  # type: ignore[arg-type]  # None is how Python marks a module absent
    try:
        yield
    finally:
        for name, module in before.items():
            if module is missing:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module  # type: ignore[assignment]


with _without("torch", "transformers", "stanza", "cupy"):
    import tldextract
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        UsSsnRecognizer,
    )

# The list of public suffixes inside the package: tldextract's own default asks the network for a newer one.
_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


class _OfflineEmailRecognizer(EmailRecognizer):
    def validate_result(self, pattern_text: str) -> bool:
        return _suffixes(pattern_text).fqdn != ""


_RECOGNISERS: Mapping[str, Callable[[], EntityRecognizer]] = {
    "EMAIL_ADDRESS": _OfflineEmailRecognizer,
    "PHONE_NUMBER": PhoneRecognizer,
    "CREDIT_CARD": CreditCardRecognizer,
    "IBAN_CODE": IbanRecognizer,
    "US_SSN": UsSsnRecognizer,
    "IP_ADDRESS": IpRecognizer,
}

_WORDS = {
    "EMAIL_ADDRESS": "an e-mail address",
    "PHONE_NUMBER": "a phone number",
    "CREDIT_CARD": "a payment card number",
    "IBAN_CODE": "a bank account number (IBAN)",
    "US_SSN": "a US social security number",
    "IP_ADDRESS": "an IP address",
}

# What must stand in a text before a recogniser can find anything: looking is far cheaper than recognising.
# Seven digits, with the signs between them that numbers are written with.
_SEVEN_DIGITS = re.compile(r"(?:\d\W{0,5}){7}")
_NEEDS: Mapping[str, re.Pattern[str]] = {
    "EMAIL_ADDRESS": re.compile("@"),
    "PHONE_NUMBER": _SEVEN_DIGITS,
    "CREDIT_CARD": _SEVEN_DIGITS,
    "US_SSN": _SEVEN_DIGITS,
    "IBAN_CODE": re.compile(r"[A-Za-z]{2}\d{2}"),
    "IP_ADDRESS": re.compile(r"\d\.\d|:"),
}

# Below it stand presidio's weakest patterns: any nine digits as a social security number.
MIN_SCORE = 0.4


class PersonalData:
    """Looks for entities out of `datanet.definition.SUPPORTED_ENTITIES`. Safe to share by threads."""

    def __init__(self, entities: tuple[str, ...]) -> None:
        self._entities = entities

    def find(self, text: str) -> str | None:
        """The entity that stands first in the text, or None."""
        entities = [entity for entity in self._entities if _NEEDS[entity].search(text)]
        if not entities:
            return None
        found = _engine().analyze(text, "en", entities=entities, score_threshold=MIN_SCORE)
        return min(found, key=lambda each: (each.start, each.entity_type)).entity_type if found else None

    def check(self, field: str, text: str) -> Rejection | None:
        """Refuses a field's text that holds personal data. The message names the kind and never the data."""
        entity = self.find(text)
        if entity is None:
            return None
        message = f"the text holds {_WORDS[entity]}; remove it and send the record again"
        return Rejection("personal_data", field, message)


@lru_cache(maxsize=1)
def _engine() -> AnalyzerEngine:
    nlp = NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}])
    nlp.load()
    registry = RecognizerRegistry(recognizers=[kind() for kind in _RECOGNISERS.values()])
    return AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["en"])
