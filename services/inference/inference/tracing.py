"""What the span of a request says about its answer: ids, counts and times, by the semantic conventions for generative AI.

It never holds a word of the prompt or the answer.
"""

from __future__ import annotations

from opentelemetry import trace

from inference.answer import Answer, Request


def requested(request: Request) -> None:
    """The request was accepted; the current span is that of its call."""
    trace.get_current_span().set_attributes(
        {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.request.model": request.served.name,
            "gen_ai.request.max_tokens": request.sampling.max_output_tokens,
            "gen_ai.usage.input_tokens": len(request.prompt_tokens),
            "openledger.inference": request.inference,
        }
    )


def answered(answer: Answer) -> None:
    """The answer has ended."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(
            {
                "gen_ai.response.finish_reasons": (answer.finish.value,),
                "gen_ai.usage.output_tokens": len(answer.output_tokens),
                "openledger.first_token_seconds": answer.time_to_first_token_s,
            }
        )
