"""A tiny model with three adapters in a real object store, and an engine that runs it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from inference.answer import Answer, Listener, Request
from inference.catalogue import Served
from inference.decoder import Decoder
from inference.engine import Engine, Limits, RequestHandle
from inference.sampling import Sampling
from modelkit import base_model
from modelkit.plain_text import token_ids
from modelkit.weights import adapter, loading
from modelkit.weights.compute import Compute, measure
from modelkit.weights.tiny import create_tiny
from servicekit.database import ulid
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore
from servicekit.testing.waiting import LONGEST_S

SLOTS = 2
LIMITS = Limits(max_sequences=4, max_queue=8, max_prefill_tokens=512)


@pytest.fixture(scope="session")
def compute() -> Compute:
    return measure("fp32")


@dataclass(frozen=True)
class World:
    """A base model and three adapters, by digest."""

    store: ObjectStore
    cache: Path
    base_digest: str
    adapters: tuple[str, ...]
    compute: Compute

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        folder = base_model.materialise(self.base_digest, self.store, self.cache)
        return loading.load(folder, self.compute)

    def fetch(self, digest: str) -> adapter.Adapter:
        return adapter.read(adapter.fetch(digest, self.store, self.cache, self.base_digest))

    def served(self, index: int | None) -> Served:
        if index is None:
            return Served(name="baseModels/tiny", base_digest=self.base_digest)
        name = f"models/m{index}/versions/1"
        return Served(
            name=name,
            base_digest=self.base_digest,
            adapter_digest=self.adapters[index],
            version_digest="sha256:" + "1" * 64,
            owner="owner",
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, compute: Compute) -> World:
    root = tmp_path_factory.mktemp("world")
    store = ObjectStore(root / "objects")
    base_digest = create_tiny(store)
    world = World(store, root / "cache", base_digest, (), compute)
    digests = []
    for seed in range(3):
        model, _ = world.load()
        torch.manual_seed(seed)
        tuned = get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM", r=2 + seed, lora_alpha=8, target_modules=["q_proj", "down_proj"]
            ),
        )
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        tuned.save_pretrained(str(root / f"peft-{seed}"))
        digests.append(adapter.publish(root / f"peft-{seed}", base_digest, store))
    return World(store, world.cache, base_digest, tuple(digests), compute)


@dataclass
class Received:
    """A listener that keeps what it received; `end` waits for the end. A held one stops the engine at its first piece."""

    pieces: list[str] = field(default_factory=list)
    first: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    _end: queue.Queue[Answer | DomainError] = field(default_factory=queue.Queue)

    def text(self, piece: str) -> None:
        self.pieces.append(piece)
        self.first.set()
        self.released.wait(LONGEST_S)

    def finished(self, answer: Answer) -> None:
        self._end.put(answer)

    def failed(self, error: DomainError) -> None:
        self._end.put(error)

    def end(self) -> Answer | DomainError:
        return self._end.get(timeout=LONGEST_S)

    def answer(self) -> Answer:
        end = self.end()
        assert isinstance(end, Answer), end
        return end


def finish_at_once(answer: Answer, listener: Listener) -> None:
    """Stands in for the write-ahead log where recording is not what is tested."""
    listener.finished(answer)


@dataclass
class Running:
    """An engine on its thread, and how to ask it."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    world: World

    def request(
        self,
        prompt: str,
        served: int | None = None,
        deadline_s: float | None = None,
        sampling: Sampling | None = None,
    ) -> Request:
        return Request(
            inference=f"inferences/{ulid()}",
            served=self.world.served(served),
            prompt=prompt,
            prompt_tokens=tuple(token_ids(self.tokenizer, prompt)),
            sampling=sampling or Sampling(max_output_tokens=12),
            principal="alice",
            deadline=None if deadline_s is None else time.monotonic() + deadline_s,
        )

    def ask(self, *args: object, held: bool = False, **kwargs: object) -> tuple[Received, RequestHandle]:
        received = Received()
        if not held:
            received.released.set()
        return received, self.engine.submit(self.request(*args, **kwargs), received)  # type: ignore[arg-type]


EngineFactory = Callable[..., Running]


@pytest.fixture
def start_engine(world: World) -> Iterator[EngineFactory]:
    """Starts engines and stops them after the test."""
    stops: list[tuple[threading.Event, threading.Thread]] = []

    def start(
        slots: int = SLOTS,
        limits: Limits = LIMITS,
        fetch: Callable[[str], adapter.Adapter] = world.fetch,
        end_tokens: frozenset[int] = frozenset(),
        begin: bool = True,
    ) -> Running:
        model, tokenizer = world.load()
        engine = Engine(
            decoder=Decoder(model, slots),
            tokenizer=tokenizer,
            end_tokens=end_tokens,
            slots=slots,
            limits=limits,
            fetch=fetch,
            record=finish_at_once,
        )
        if begin:
            stop = threading.Event()
            thread = threading.Thread(target=engine.run, args=(stop,))
            thread.start()
            stops.append((stop, thread))
        return Running(engine, tokenizer, world)

    yield start
    for stop, _ in stops:
        stop.set()
    for _, thread in stops:
        thread.join()
