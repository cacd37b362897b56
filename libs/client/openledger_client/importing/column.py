"""What was seen in one column of a file, and what that suggests for its field."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

MAX_LENGTH = 1 << 20
"""Most characters that a schema can allow a field."""
MIN_WORDS = 4
"""What a Datanet asks of a record's text unless its policy says otherwise."""
_MAX_LABELS = 50
_MAX_LABEL_LENGTH = 200
_ROWS_PER_LABEL = 3


@dataclass(kw_only=True)
class Column:
    """What was seen in one column."""

    name: str
    field: str = ""
    """The name that its field gets."""
    filled: int = 0
    """Rows with a value."""
    longest: int = 0
    """In characters."""
    characters: int = 0
    """Of all values."""
    wordless: int = 0
    """Values of fewer than four words."""
    fewest_words: int = MAX_LENGTH
    values: Counter[str] | None = dataclasses.field(default_factory=Counter)
    """How often each value occurs; None once there are too many, or too long ones, for a closed list."""

    def add(self, text: str) -> None:
        """Counts a value."""
        self.filled += 1
        self.longest = max(self.longest, len(text))
        self.characters += len(text)
        words = len(text.split())
        self.fewest_words = min(self.fewest_words, words)
        self.wordless += words < MIN_WORDS
        if self.values is not None:
            self.values[text] += 1
            if len(self.values) > _MAX_LABELS or len(text) > _MAX_LABEL_LENGTH or not text.isprintable():
                self.values = None

    @property
    def labels(self) -> list[str]:
        """The values, if they are so few that they look like a closed list; otherwise none."""
        if not self.values or len(self.values) < 2 or self.filled < _ROWS_PER_LABEL * len(self.values):
            return []
        return sorted(self.values)

    @property
    def max_length(self) -> int:
        """Twice the longest value, rounded up to a round number."""
        doubled = max(2 * self.longest, 20)
        unit = 10 ** (len(str(doubled)) - 1)
        return int(min(-(-doubled // unit) * unit, MAX_LENGTH))
