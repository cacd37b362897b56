"""Callers of a small platform: contributors who stream records, users who ask questions. Through public APIs only.

A caller that is cut off or refused does what a good client does: it waits a moment and sends the same again.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc
from openledger.datanet.v1 import datanet_pb2 as datanet
from openledger.inference.v1 import inference_pb2 as inference

from openledger_client import Client, sealing
from openledger_client.errors import InvalidArgument, OpenLedgerError
from openledger_testing.acknowledged import Promises

DATANET = "datanets/faults"
OWNER = ("olga", ("curator",))
CONTRIBUTORS = ("ada", "ben")
ASKERS = 2
BASE_MODEL = "baseModels/tiny"
RECORDS_A_STREAM = 8
_AGAIN_S = 0.2
PACE_S = 0.4
"""Between two calls of one caller: the load is to be there all the time, not to be all that the machine can do."""
_SEAL_EVERY_S = 8.0
_WORDS = """
    actor group malware implant loader operator server domain account service registry driver script macro payload
    beacon tunnel proxy credential token ticket memory process thread kernel volume backup archive sample report
    uses creates deletes encrypts collects uploads hides renames schedules injects dumps queries moves disables
    quickly silently remotely locally often twice before after during while against inside behind through
""".split()  # noqa: SIM905 - to be read by people


@dataclass
class Load:
    """Threads that call until they are stopped."""

    seed: int
    pace_s: float = PACE_S
    promises: Promises = field(default_factory=Promises)
    problems: list[str] = field(default_factory=list)
    """Errors that no fault explains: a wrong answer, a refusal for the caller's fault."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def prepare(self, client: Client) -> None:
        """Makes the Datanet and its contributors."""
        definition = datanet.Datanet(
            display_name="Faults",
            licence="CC-BY-4.0",
            schema=datanet.RecordSchema(
                fields=[
                    datanet.RecordSchema.Field(name="text", required=True, max_length=4000),
                    datanet.RecordSchema.Field(name="kind", required=True, max_length=20),
                ],
                prompt_template="{text}",
                completion_template=" {kind}",
            ),
            policy=datanet.QualityPolicy(contamination_check=datanet.CONTAMINATION_CHECK_OFF),
        )
        request = datanet.CreateDatanetRequest(datanet_id="faults", datanet=definition)
        client.datanet.CreateDatanet(request, timeout=60)
        for name in CONTRIBUTORS:
            details = datanet.Contributor(principal=name, display_name=name, consent_licence="CC-BY-4.0")
            client.datanet.RegisterContributor(
                datanet.RegisterContributorRequest(parent=DATANET, contributor_id=name, contributor=details),
                timeout=60,
            )

    def start(self, connect: Callable[[str, tuple[str, ...]], Client]) -> None:
        """Begins to call."""
        for name in CONTRIBUTORS:
            self._run(self._contribute, name, connect(name, ("contributor",)))
        for number in range(ASKERS):
            self._run(self._ask, f"asker{number}", connect(f"asker{number}", ("user",)))
        self._run(self._seal, OWNER[0], connect(*OWNER))

    def stop(self) -> None:
        """Ends after the calls that run."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, call: Callable[[str, Client], None], name: str, client: Client) -> None:
        def run() -> None:
            try:
                call(name, client)
            except Exception as error:  # noqa: BLE001 - reported as a problem of the load
                self.problems.append(f"{name} ended: {error!r}")

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _contribute(self, name: str, client: Client) -> None:
        texts = _texts(random.Random(f"{self.seed} {name}"))
        while not self._stop.is_set():
            batch = [
                json.dumps({"text": next(texts), "kind": "procedure"}).encode()
                for _ in range(RECORDS_A_STREAM)
            ]
            self._until_done(lambda batch=batch: self._stream(name, client, batch))  # type: ignore[misc]
        client.close()

    def _stream(self, name: str, client: Client, batch: list[bytes]) -> None:
        """One stream. What it acknowledged before it was cut is acknowledged; all of it is sent again."""
        contributor = f"{DATANET}/contributors/{name}"
        requests = [
            datanet.ContributeRequest(contributor=contributor, sequence=number, content=content)
            for number, content in enumerate(batch, start=1)
        ]
        begun = False
        try:
            for response in client.datanet.Contribute(iter(requests), timeout=60):
                begun = True
                if response.state == datanet.RECORD_STATE_ACCEPTED:
                    self.promises.record(response.digest)
                else:
                    self.problems.append(f"{name}: {response.rule}: {response.status.message}")
        except OpenLedgerError as error:
            self.promises.failed(begun, f"Contribute of {name}: {error}")
            raise

    def _ask(self, name: str, client: Client) -> None:
        rng = random.Random(f"{self.seed} {name}")
        texts = _texts(rng)
        while not self._stop.is_set():
            self._until_done(lambda: self.answer(client, next(texts), rng.choice([8, 64, 256])))
        client.close()

    def answer(self, client: Client, prompt: str, tokens: int) -> str:
        """One whole answer; returns its inference. Raises OpenLedgerError."""
        request = inference.GenerateRequest(
            model=BASE_MODEL, prompt=prompt, sampling=inference.SamplingParameters(max_output_tokens=tokens)
        )
        name = ""
        try:
            for response in client.inference.Generate(request, timeout=60):
                if response.HasField("started"):
                    name = response.started.inference
                elif response.HasField("finished"):
                    self.promises.answer(name)
        except OpenLedgerError as error:
            self.promises.failed(bool(name), f"Generate {name}: {error}")
            raise
        return name

    def _seal(self, name: str, client: Client) -> None:
        number = 0
        while not self._stop.wait(_SEAL_EVERY_S):
            number += 1
            self._until_done(lambda number=number: self.seal(client, f"seal-{number}"))  # type: ignore[misc]
        client.close()

    def seal(self, client: Client, request_id: str) -> str:
        """Seals a snapshot and returns its name; the same request makes it once. Raises OpenLedgerError."""
        request = datanet.SealSnapshotRequest(
            parent=DATANET, held_out_fraction=0.2, control_fraction=0.1, request_id=request_id
        )
        try:
            name: str = sealing.seal(client.datanet, request).name
        except OpenLedgerError as error:
            # The error does not say whether the operation has begun; if it has, the same request finds it.
            self.promises.failed(False, f"SealSnapshot {request_id}: {error}")
            raise
        self.promises.snapshot(name)
        return name

    def _until_done(self, call: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                call()
            except OpenLedgerError as error:
                if _callers_fault(error):
                    self.problems.append(f"{type(error).__name__}: {error}")
                    return
                self._stop.wait(error.retry_after_s or _AGAIN_S)
            else:
                self._stop.wait(self.pace_s)
                return


def _callers_fault(problem: OpenLedgerError) -> bool:
    """Errors that a fault of the platform must not turn into."""
    bad = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND)
    denied = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    return isinstance(problem, InvalidArgument) or problem.code in (*bad, *denied)


def _texts(rng: random.Random) -> Iterator[str]:
    """Texts of which no two are near each other."""
    while True:
        yield " ".join(rng.choice(_WORDS) for _ in range(24)) + "."
