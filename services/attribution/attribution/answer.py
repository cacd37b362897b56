"""The parts of an answer that attribution needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The model that answered. `adapter_digest`, `version_digest` and `report_digest` are "" if the base model answered."""

    name: str
    base_digest: str
    adapter_digest: str
    version_digest: str
    report_digest: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. Texts are "" and token ids empty if policy leaves them out of the event."""

    inference: str
    model: ServedModel
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    prompt: str
    output: str
    input_tokens: int
    output_tokens: int
    principal: str
    model_owner: str
    left_out: tuple[str, ...]
