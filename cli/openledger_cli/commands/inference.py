"""`openledger ask`: a prompt, and its answer as it is made."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli import lists
from openledger_cli.console import printable, say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.options import Limit, show_list
from openledger_cli.output import as_dict, lower_name

if TYPE_CHECKING:
    from openledger.inference.v1 import inference_pb2 as pb
else:
    pb = Deferred("openledger.inference.v1.inference_pb2")


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
    call = session().client.inference.Generate(request)
    try:
        for response in call:
            _print_part(response)
    except KeyboardInterrupt:
        call.cancel()
        raise


def served(
    filter: Annotated[str, lists.SERVED_MODELS.filter_option()] = "",
    order_by: Annotated[str, lists.SERVED_MODELS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists the models that answer now."""
    show_list(
        session().client.inference.ListServedModels,
        pb.ListServedModelsRequest(),
        lambda page: page.models,
        [
            ("model", lambda m: m.name),
            ("default", lambda m: m.is_default),
            ("adapter", lambda m: m.adapter_digest or "-"),
            ("report", lambda m: m.report_digest or "-"),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


def _print_part(response: pb.GenerateResponse) -> None:
    if session().as_json:
        print(json.dumps(as_dict(response), ensure_ascii=False), flush=True)
    elif response.HasField("delta"):
        print(printable(response.delta.text), end="", flush=True)
    elif response.HasField("started"):
        say((f"{response.started.inference} by {response.started.model.name}", "dim"))
    elif response.HasField("finished"):
        usage = response.finished.usage
        reason = lower_name(pb.FinishReason.Name(response.finished.reason), "FINISH_REASON_")
        say(
            (
                f"\n{reason}; {usage.input_tokens} tokens in, {usage.output_tokens} out, first after "
                f"{response.finished.time_to_first_token.ToMilliseconds()} ms",
                "dim",
            )
        )
