"""The samples of one read of /metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Samples:
    """Samples by name and label."""

    def __init__(self, text: str) -> None:
        """Parses a text. Raises ValueError when it is not in the format of Prometheus."""
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def of(self, name: str) -> list[Sample]:
        """Returns all samples of a name, each with `labels` and `value`."""
        return [sample for sample in self._samples if sample.name == name]

    def value(self, name: str, **labels: str) -> float | None:
        """Returns the value of the sample with these labels; None when there is none."""
        found = (
            s.value for s in self.of(name) if all(s.labels.get(key) == want for key, want in labels.items())
        )
        return next(found, None)
