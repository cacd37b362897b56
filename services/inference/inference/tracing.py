"""What the span of a question tells of its answer: ids, counts and times, by the semantic conventions for generative AI.
Never a word of what was asked or said."""

from __future__ import annotations

from opentelemetry import trace

from inference.answer import Answer, Question


def asked(question: Question) -> None:
    """The question was taken; the current span is its call's."""
    trace.get_current_span().set_attributes(
        {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.request.model": question.served.name,
            "gen_ai.request.max_tokens": question.sampling.max_output_tokens,
            "gen_ai.usage.input_tokens": len(question.prompt_tokens),
            "openledger.inference": question.inference,
        }
    )


def answered(answer: Answer) -> None:
    """The answer has ended; when it was streamed by HTTP its call's span has ended before, and is left as it is."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(
            {
                "gen_ai.response.finish_reasons": (answer.finish.value,),
                "gen_ai.usage.output_tokens": len(answer.output_tokens),
                "openledger.first_token_seconds": answer.time_to_first_token_s,
            }
        )
