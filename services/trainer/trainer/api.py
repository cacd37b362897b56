"""The gRPC door: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.trainer.v1 import trainer_pb2 as pb
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceServicer
from sqlalchemy import Engine

from identity.names import ModelVersionName
from servicekit.auth import current_principal
from servicekit.objects import ObjectStore
from trainer import convert, names, paging
from trainer.base_models import BaseModel, BaseModels
from trainer.evaluations import Evaluations
from trainer.promotion import Promotion
from trainer.runs import Runs
from trainer.versions import Versions
from trainer.watch import follow

Context = grpc.aio.ServicerContext[Any, Any]

_CHUNK_BYTES = 256 << 10


class TrainerApi(TrainerServiceServicer):
    """TrainerService over one database, one object store and one folder of jobs."""

    def __init__(self, engine: Engine, objects: ObjectStore, base_models: BaseModels, jobs_dir: Path) -> None:
        self._base_models = base_models
        self._runs = Runs(engine, objects, base_models)
        self._versions = Versions(engine)
        self._evaluations = Evaluations(engine, objects)
        self._promotion = Promotion(engine, objects)
        self._jobs_dir = jobs_dir

    async def ListBaseModels(
        self, request: pb.ListBaseModelsRequest, context: Context
    ) -> pb.ListBaseModelsResponse:
        """See the proto."""
        after = paging.key_of(request.page_token)
        found = [model for model in await asyncio.to_thread(self._base_models.registered) if model.id > after]
        page, token = paging.page(
            found[: paging.limit(request.page_size)], request.page_size, lambda model: model.id
        )
        return pb.ListBaseModelsResponse(base_models=map(_base_model, page), next_page_token=token)

    async def AssessTrainingSpec(
        self, request: pb.AssessTrainingSpecRequest, context: Context
    ) -> pb.TrainingAssessment:
        """See the proto."""
        assessed = await asyncio.to_thread(
            self._runs.assess, request.base_model, request.snapshots, request.spec, request.intent
        )
        return assessed.message

    async def CreateTrainingRun(
        self, request: pb.CreateTrainingRunRequest, context: Context
    ) -> pb.TrainingRun:
        """See the proto."""
        return convert.run(await asyncio.to_thread(self._runs.create, current_principal(), request))

    async def GetTrainingRun(self, request: pb.GetTrainingRunRequest, context: Context) -> pb.TrainingRun:
        """See the proto."""
        return convert.run(await asyncio.to_thread(self._runs.get, names.id_of(request.name)))

    async def ListTrainingRuns(
        self, request: pb.ListTrainingRunsRequest, context: Context
    ) -> pb.ListTrainingRunsResponse:
        """See the proto."""
        page, token = await asyncio.to_thread(
            self._runs.list, request.model, request.page_size, request.page_token
        )
        return pb.ListTrainingRunsResponse(training_runs=map(convert.run, page), next_page_token=token)

    async def WatchTrainingRun(
        self, request: pb.WatchTrainingRunRequest, context: Context
    ) -> AsyncIterator[pb.TrainingRunUpdate]:
        """See the proto."""
        id_ = names.id_of(request.name)
        async for seen in follow(
            self._jobs_dir / id_, lambda: self._runs.get(id_), lambda run: run.job.state.final
        ):
            yield pb.TrainingRunUpdate(
                state=convert.RUN_STATES[seen.entity.job.state],
                progress=convert.progress(seen.line) if seen.line else None,
                metrics=convert.step_metrics(seen.line) if seen.line else None,
                run=convert.run(seen.entity) if seen.last else None,
            )

    async def CancelTrainingRun(
        self, request: pb.CancelTrainingRunRequest, context: Context
    ) -> pb.TrainingRun:
        """See the proto."""
        return convert.run(
            await asyncio.to_thread(self._runs.cancel, current_principal(), names.id_of(request.name))
        )

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.ModelVersion:
        """See the proto."""
        name = names.parse("name", ModelVersionName, request.name)
        return convert.version(await asyncio.to_thread(self._versions.get, name))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        """See the proto."""
        page, token = await asyncio.to_thread(
            self._versions.list, request.parent, request.page_size, request.page_token
        )
        return pb.ListModelVersionsResponse(model_versions=map(convert.version, page), next_page_token=token)

    async def EvaluateModelVersion(
        self, request: pb.EvaluateModelVersionRequest, context: Context
    ) -> pb.Evaluation:
        """See the proto."""
        name = names.parse("name", ModelVersionName, request.name)
        return convert.evaluation(
            await asyncio.to_thread(self._evaluations.start, current_principal(), name, request)
        )

    async def WatchEvaluation(
        self, request: pb.WatchEvaluationRequest, context: Context
    ) -> AsyncIterator[pb.EvaluationUpdate]:
        """See the proto."""
        id_ = names.id_of(request.name)
        async for seen in follow(
            self._jobs_dir / id_, lambda: self._evaluations.get(id_), lambda found: found.job.state.final
        ):
            yield pb.EvaluationUpdate(
                evaluation=convert.evaluation(seen.entity),
                progress=convert.progress(seen.line) if seen.line else None,
                items_per_s=seen.line.metrics.get("items_per_s", 0.0) if seen.line else 0.0,
            )

    async def GetEvaluationReport(
        self, request: pb.GetEvaluationReportRequest, context: Context
    ) -> pb.EvaluationReport:
        """See the proto."""
        return await asyncio.to_thread(self._evaluations.report, request.digest)

    async def DownloadEvaluationOutcomes(
        self, request: pb.DownloadEvaluationOutcomesRequest, context: Context
    ) -> AsyncIterator[ObjectChunk]:
        """See the proto."""
        digest, file = await asyncio.to_thread(self._evaluations.outcomes, request.digest)
        with file:
            size = os.fstat(file.fileno()).st_size
            for offset in range(0, max(size, 1), _CHUNK_BYTES):
                data = await asyncio.to_thread(file.read, _CHUNK_BYTES)
                yield ObjectChunk(digest=digest, size=size, offset=offset, data=data)

    async def PromoteModelVersion(
        self, request: pb.PromoteModelVersionRequest, context: Context
    ) -> pb.ModelVersion:
        """See the proto."""
        name = names.parse("name", ModelVersionName, request.name)
        return convert.version(
            await asyncio.to_thread(self._promotion.promote, current_principal(), name, request)
        )

    async def CreatePromotionOverride(
        self, request: pb.CreatePromotionOverrideRequest, context: Context
    ) -> pb.PromotionOverride:
        """See the proto."""
        name = names.parse("model_version", ModelVersionName, request.model_version)
        return convert.override(
            await asyncio.to_thread(self._promotion.create_override, current_principal(), name, request)
        )

    async def ApprovePromotionOverride(
        self, request: pb.ApprovePromotionOverrideRequest, context: Context
    ) -> pb.PromotionOverride:
        """See the proto."""
        override = await asyncio.to_thread(
            self._promotion.approve_override, current_principal(), names.id_of(request.name)
        )
        return convert.override(override)


def _base_model(model: BaseModel) -> pb.BaseModel:
    return pb.BaseModel(
        name=f"baseModels/{model.id}",
        digest=model.digest,
        display_name=model.display_name,
        licence=model.licence,
        parameter_count=model.parameter_count,
        source=model.source,
    )
