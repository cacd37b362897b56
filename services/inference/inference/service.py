"""Builds the service from its settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from openledger.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from openledger.trainer.v1.events_pb2 import ModelVersionChanged
from sqlalchemy.orm import Session

from inference.answer_log import AnswerLog
from inference.api import InferenceServicer
from inference.audit import facts, logged
from inference.base import Base, load_base
from inference.decoder import Decoder
from inference.engine import Engine, Limits
from inference.events import model_version_changed
from inference.frontend import Frontend
from inference.openai_api import OpenAiErrors, openai_routes
from inference.read_model import ReadModel
from inference.references import references
from inference.settings import InferenceSettings
from modelkit.weights import adapter
from servicekit.errors import StartupError
from servicekit.eventlog.events import Event, to_record
from servicekit.eventlog.topics import MODEL_VERSION_V1
from servicekit.objects import ObjectStore
from servicekit.server import Service
from servicekit.wal import Wal, WalInUse, WalSender, pack

Append = Callable[[Event[Any]], None]


def build(settings: InferenceSettings) -> Service:
    """Returns the service, ready to run. Raises StartupError for what its operator can repair."""
    service = Service("inference", settings, "inference")
    try:
        wal = Wal(settings.wal_folder)
    except (WalInUse, OSError) as error:
        raise StartupError(str(error)) from None
    sender = WalSender(wal, service.event_log)
    recorded = assemble(service, settings, lambda event: wal.append(pack(to_record(event))))

    def send(stop: threading.Event) -> None:
        # It ends with the last answer, not with `stop`: what a draining service still records is sent too.
        sender.run(recorded)
        wal.close()

    service.add_thread("answer-sender", send)
    return service


def assemble(service: Service, settings: InferenceSettings, append: Append) -> threading.Event:
    """Adds APIs, threads and the consumer to a service; events of finished answers go to `append`.

    Returns an event that is set once the service stops and its last answer was appended. Raises StartupError if the base
    model cannot be found.
    """
    recorded = threading.Event()
    base = load_base(settings.base_model, service.objects, settings.cache_folder)
    answer_log = AnswerLog(append, settings.leave_out, base.compute_name)
    engine = _engine(base, settings, service.objects, answer_log)
    read_model = ReadModel(service.engine, base.name, base.digest, engine.preload)
    longest = min(settings.max_context_tokens or base.max_context_tokens, base.max_context_tokens)
    frontend = Frontend(
        engine=engine,
        tokenizer=base.tokenizer,
        max_context_tokens=longest,
        catalogue=lambda: read_model.catalogue,
        check=answer_log.check,
    )

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
    service.add_thread("read-model", read_model.loop)

    def version_changed(session: Session, event: Event[ModelVersionChanged]) -> None:
        model_version_changed(session, event)
        read_model.refresh_after(session)

    service.subscribe(MODEL_VERSION_V1, ModelVersionChanged, version_changed, group=settings.consumer_group)
    service.add_references(references(base.digest))
    service.add_facts(facts, files=partial(logged, settings.wal_folder))
    service.add_servicer(add_InferenceServiceServicer_to_server, InferenceServicer(frontend))
    service.add_http(openai_routes(frontend, settings.max_answer_s), OpenAiErrors(), settings.http_port)
    return recorded


def _engine(base: Base, settings: InferenceSettings, objects: ObjectStore, answer_log: AnswerLog) -> Engine:
    return Engine(
        decoder=Decoder(base.model, settings.adapter_slots),
        tokenizer=base.tokenizer,
        end_tokens=base.end_tokens,
        slots=settings.adapter_slots,
        limits=Limits(settings.max_sequences, settings.max_queue, settings.max_prefill_tokens),
        fetch=partial(_fetch, objects, settings, base.digest),
        record=answer_log.record,
    )


def _fetch(
    objects: ObjectStore, settings: InferenceSettings, base_digest: str, digest: str
) -> adapter.Adapter:
    return adapter.read(adapter.fetch(digest, objects, settings.cache_folder, base_digest))
