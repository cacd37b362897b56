"""`openledger ask`: a question, streamed."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from openledger.inference.v1 import inference_pb2 as pb

from openledger_cli.context import session
from openledger_cli.output import as_dict, console, emit_list
from openledger_cli.paging import every


def ask(
    model: Annotated[str, typer.Argument(help="models/M, models/M/versions/N or baseModels/B")],
    prompt: Annotated[str, typer.Argument(help="The prompt as the model sees it; - for standard input.")],
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Annotated[list[str], typer.Option(help="The answer ends before this; may be repeated.")] = [],
) -> None:
    """Asks a model and streams its answer. Ctrl-C stops it."""
    request = pb.GenerateRequest(
        model=model,
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        sampling=pb.SamplingParameters(
            max_output_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop
        ),
    )
    call = session().connections.inference.Generate(request)
    try:
        for response in call:
            _print_part(response)
    except KeyboardInterrupt:
        call.cancel()
        raise


def served() -> None:
    """Lists what can be asked now."""
    stub = session().connections.inference
    found = every(lambda token: stub.ListServedModels(pb.ListServedModelsRequest(page_token=token)), "models")
    emit_list(
        found,
        [
            ("model", lambda m: m.name),
            ("default", lambda m: m.is_default),
            ("adapter", lambda m: m.adapter_digest or "-"),
            ("report", lambda m: m.report_digest or "-"),
        ],
    )


def _print_part(response: pb.GenerateResponse) -> None:
    if session().as_json:
        print(json.dumps(as_dict(response), ensure_ascii=False), flush=True)
    elif response.HasField("delta"):
        print(response.delta.text, end="", flush=True)
    elif response.HasField("started"):
        console.print(f"[dim]{response.started.inference} by {response.started.model.name}[/dim]")
    elif response.HasField("finished"):
        usage = response.finished.usage
        reason = pb.FinishReason.Name(response.finished.reason).removeprefix("FINISH_REASON_").lower()
        console.print(
            f"\n[dim]{reason}; {usage.input_tokens} tokens in, {usage.output_tokens} out, first after "
            f"{response.finished.time_to_first_token.ToMilliseconds()} ms[/dim]"
        )
