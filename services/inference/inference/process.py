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
from inference.references import references
from inference.settings import InferenceSettings
from modelkit import adapter
from servicekit.errors import StartupError
from servicekit.events import Event, to_record
from servicekit.objects import ObjectStore
from servicekit.server import Service
from servicekit.topics import MODEL_VERSION_V1
from servicekit.wal import Wal, WalInUse, WalSender, pack

Append = Callable[[Event[Any]], None]


def build(settings: InferenceSettings) -> Service:
    """The service as it is run. Raises StartupError for what its operator can mend."""
    service = Service("inference", settings, "inference")
    try:
        wal = Wal(settings.wal_folder)
    except (WalInUse, OSError) as error:
        raise StartupError(str(error)) from None
    sender = WalSender(wal, service.event_log)
    recorded = assemble(service, settings, lambda event: wal.append(pack(to_record(event))))

    def send(stop: threading.Event) -> None:
        # Not `stop` ends it but the last answer: what a draining service still records is sent too.
        sender.run(recorded)
        wal.close()

    service.add_thread("answer-sender", send)
    return service


def assemble(service: Service, settings: InferenceSettings, append: Append) -> threading.Event:
    """Adds doors, threads and the consumer to a service; finished answers' events go to `append`.

    Returns what is set once the service stops and its last answer was appended. Raises StartupError when the
    base model cannot be found.
    """
    recorded = threading.Event()
    base = load_base(settings.base_model, service.objects, settings.cache_folder)
    answer_log = AnswerLog(append, settings.leave_out, base.compute_name)
    engine = _engine(base, settings, service.objects, answer_log)
    projection = Projection(service.engine, base.name, base.digest, engine.preload)
    longest = min(settings.max_context_tokens or base.max_context_tokens, base.max_context_tokens)
    reception = Reception(engine, base.tokenizer, longest, lambda: projection.catalogue, answer_log.check)

    def decode(stop: threading.Event) -> None:
        try:
            engine.run(stop)
        finally:
            answer_log.close()  # only now has the last answer been handed over

    def record(stop: threading.Event) -> None:
        try:
            answer_log.run()
        finally:
            recorded.set()

    service.add_thread("engine", decode)
    service.add_thread("answer-log", record)
    service.add_thread("projection", projection.run)
    service.add_consumer(
        settings.consumer_group,
        {MODEL_VERSION_V1: {events_pb2.ModelVersionChanged.DESCRIPTOR.full_name: model_version_changed}},
    )
    service.add_references(references(base.digest))
    service.add_servicer(add_InferenceServiceServicer_to_server, InferenceServicer(reception))
    app = build_app(reception, service.verifier.verify, service.limiter, settings.max_answer_s)
    service.add_http(app, settings.http_port)
    return recorded


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
