"""Puts the service together from its settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from openledger.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from openledger.trainer.v1 import events_pb2

from inference.answer_log import AnswerLog
from inference.api import InferenceServicer
from inference.base import Base, load_base
from inference.decoder import Decoder
from inference.engine import Engine, Limits
from inference.events import model_version_changed
from inference.openai_door import build_app
from inference.projection import Projection
from inference.reception import Reception
from inference.settings import InferenceSettings
from modelkit import adapter
from servicekit.auth import KeySet, TokenVerifier
from servicekit.events import Event
from servicekit.objects import ObjectStore
from servicekit.server import Service
from servicekit.topics import MODEL_VERSION_V1

Append = Callable[[Event[Any]], None]


def assemble(service: Service, settings: InferenceSettings, append: Append) -> None:
    """Adds doors, threads and the consumer to a service; finished answers' events go to `append`.

    Raises StartupError when the base model cannot be found.
    """
    base = load_base(settings.base_model, service.objects, settings.cache_folder)
    answer_log = AnswerLog(append, settings.leave_out, base.compute_name)
    engine = _engine(base, settings, service.objects, answer_log)
    projection = Projection(service.engine, base.name, base.digest, engine.preload)
    longest = min(settings.max_context_tokens or base.max_context_tokens, base.max_context_tokens)
    reception = Reception(engine, base.tokenizer, longest, lambda: projection.catalogue)

    def decode(stop: threading.Event) -> None:
        try:
            engine.run(stop)
        finally:
            answer_log.close()  # only now has the last answer been handed over

    service.add_thread("engine", decode)
    service.add_thread("answer-log", answer_log.run)
    service.add_thread("projection", projection.run)
    service.add_consumer(
        "inference",
        {MODEL_VERSION_V1: {events_pb2.ModelVersionChanged.DESCRIPTOR.full_name: model_version_changed}},
    )
    service.add_servicer(add_InferenceServiceServicer_to_server, InferenceServicer(reception))
    verifier = TokenVerifier(
        KeySet(settings.auth_jwks), settings.auth_issuer, settings.auth_audience, settings.auth_roles_claim
    )
    service.add_http(build_app(reception, verifier.verify, settings.max_answer_s), settings.http_port)


def _engine(base: Base, settings: InferenceSettings, objects: ObjectStore, answer_log: AnswerLog) -> Engine:
    return Engine(
        Decoder(base.model, settings.adapter_slots),
        base.tokenizer,
        base.end_tokens,
        settings.adapter_slots,
        Limits(settings.max_rows, settings.max_queue, settings.max_prefill_tokens),
        partial(_fetch, objects, settings, base.digest),
        answer_log.record,
    )


def _fetch(
    objects: ObjectStore, settings: InferenceSettings, base_digest: str, digest: str
) -> adapter.Adapter:
    return adapter.read(adapter.fetch(digest, objects, settings.cache_folder, base_digest))
