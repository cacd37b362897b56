"""Detects personal data and secrets by patterns and checksums. It loads no model and needs no network.

Every recogniser takes time in proportion to the text, for any text: a stranger chooses it. A pattern therefore has bounds
on every repetition, and starts only where no earlier start has read the same characters. Module by module:

    folding         one spelling for full-width forms, other digits and invisible characters
    emails          plain and disguised addresses
    numbers         payment cards, bank accounts, phone numbers, IP addresses
    national_ids    numbers that a state gives a person
    secrets         API keys, private keys, tokens, passwords
    checksums       the check digits that these numbers have
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datanet.contribution import Rejection
from datanet.personal_data import emails, national_ids, numbers, secrets
from datanet.personal_data.folding import FoldedText

VERSION = 3
"""1 was presidio's recognisers: e-mail, phone, card, IBAN, US_SSN, IP_ADDRESS."""

_RECOGNISERS: Mapping[str, tuple[Callable[[FoldedText], int | None], str]] = {
    "EMAIL_ADDRESS": (emails.find, "an e-mail address"),
    "PHONE_NUMBER": (numbers.find_phone, "a phone number"),
    "CREDIT_CARD": (numbers.find_card, "a payment card number"),
    "IBAN_CODE": (numbers.find_iban, "a bank account number (IBAN)"),
    "US_SSN": (national_ids.find_us_ssn, "a US social security number"),
    "NATIONAL_ID": (national_ids.find, "a national identity or tax number"),
    "SECRET": (secrets.find, "a password, key or token"),
    "IP_ADDRESS": (numbers.find_ip, "an IP address"),
}
"""By entity: where the first one begins in a folded text, and its name in a reason."""


class PersonalData:
    """Detects entities of `datanet.definition.SUPPORTED_ENTITIES`. Safe to share between threads."""

    def __init__(self, entities: tuple[str, ...]) -> None:
        self._entities = entities

    def find(self, text: str) -> str | None:
        """Returns the first entity in the text, or None."""
        folded = FoldedText(text)
        found = [(_RECOGNISERS[entity][0](folded), entity) for entity in self._entities]
        places = [(start, entity) for start, entity in found if start is not None]
        return min(places)[1] if places else None

    def check(self, field: str, text: str) -> Rejection | None:
        """Rejects a text that contains personal data. The message names the kind and never the data."""
        entity = self.find(text)
        if entity is None:
            return None
        message = f"the text contains {_RECOGNISERS[entity][1]}; remove it and send the record again"
        return Rejection("personal_data", field, message)
