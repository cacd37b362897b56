"""The same service on PostgreSQL: tables, transactions, a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from servicekit.database import schema_differences
from servicekit.testing import postgresql, running
from trainer.__main__ import build
from trainer.settings import TrainerSettings
from trainer.store import Base

pytestmark = pytest.mark.server


@pytest.fixture
def on_postgresql(settings: TrainerSettings, house: Any, scripted: Any) -> Iterator[Any]:
    with postgresql() as url:
        runner = scripted()
        moved = settings.model_copy(update={"database_url": url})
        with running(build(moved, runner)) as service:
            trainer = house(moved, runner, service)
            yield trainer
            for channel in trainer.channels:
                channel.close()


def test_a_model_goes_from_snapshot_to_promotion(on_postgresql: Any) -> None:
    trainer = on_postgresql
    assert not schema_differences(trainer.service.engine, Base.metadata)
    trainer.seal()
    version = trainer.evaluated(trainer.trained(request_id="r1"), domain=0.4, arc_easy=0.0)
    promoted = trainer.stub().PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name))
    assert promoted.state == pb.MODEL_VERSION_STATE_PROMOTED
