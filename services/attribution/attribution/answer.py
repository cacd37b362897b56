"""An answer as attribution needs it, read from its event."""

from __future__ import annotations

from dataclasses import dataclass

from openledger.inference.v1 import inference_pb2


@dataclass(frozen=True)
class ServedModel:
    """What answered. `adapter_digest`, `version_digest` and `report_digest` are "" for a base model."""

    name: str
    base_digest: str
    adapter_digest: str
    version_digest: str
    report_digest: str


@dataclass(frozen=True)
class Answer:
    """One answer. Texts are "" and token ids empty where policy left them out of the event."""

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

    @classmethod
    def from_event(cls, event: inference_pb2.InferenceCompleted) -> Answer:
        """From the event's message."""
        model = event.model
        return cls(
            event.inference,
            ServedModel(
                model.name, model.base_digest, model.adapter_digest, model.version_digest, model.report_digest
            ),
            tuple(event.prompt_token_ids),
            tuple(event.output_token_ids),
            event.prompt,
            event.output,
            event.usage.input_tokens,
            event.usage.output_tokens,
            event.principal,
            event.model_owner,
            tuple(event.left_out),
        )
