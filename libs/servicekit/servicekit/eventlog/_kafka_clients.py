"""Opens kafka-python's clients, and leaves nothing behind when no broker answers."""

from __future__ import annotations

from typing import Any

from kafka.net.compat import KafkaNetClient


def opened(kind: Any, *topics: str, **configuration: Any) -> Any:
    """Returns a client of this kind: KafkaProducer, KafkaConsumer or KafkaAdminClient. Raises KafkaError.

    kafka-python 3.0.12 starts a thread with two sockets and then looks for brokers. When it finds none it raises, and the
    thread would stay for as long as the process: in an outage one more with every attempt.
    """
    made: list[Any] = []

    def network(**options: Any) -> Any:
        made.append(KafkaNetClient(**options))
        return made[-1]

    try:
        return kind(*topics, kafka_client=network, **configuration)
    except BaseException:
        for each in made:
            each.close()
        raise
