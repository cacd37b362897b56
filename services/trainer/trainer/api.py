"""The gRPC API: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from openledger.common.v1.list_pb2 import VIEW_FULL
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.trainer.v1 import trainer_pb2 as pb
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceServicer
from sqlalchemy import Engine

from identity.names import (
    EvaluationName,
    GatePolicyName,
    GatePolicyVersionName,
    ModelName,
    ModelVersionName,
    PromotionOverrideName,
    TrainingRunName,
)
from servicekit import names
from servicekit.auth import current_principal
from servicekit.database.request_ids import RequestId
from servicekit.database.watches import Changes
from servicekit.lists import Query
from servicekit.objects import ObjectStore
from trainer import convert, guide
from trainer.base_models import BaseModels
from trainer.evaluations import Evaluations
from trainer.gate_policies import GatePolicies
from trainer.jobs.runner import JobRunner, cores
from trainer.model_files import ModelFiles, pieces
from trainer.overrides import Overrides
from trainer.promotion import Promotions
from trainer.runs import Runs
from trainer.versions import Versions
from trainer.watch import follow

Context = grpc.aio.ServicerContext[Any, Any]

_ALL_MODELS = "models/-"
_ALL_POLICIES = "gatePolicies/-"


class TrainerApi(TrainerServiceServicer):
    """TrainerService over one database, one object store and one folder of jobs."""

    def __init__(
        self,
        *,
        engine: Engine,
        changes: Changes,
        objects: ObjectStore,
        base_models: BaseModels,
        jobs_dir: Path,
        runner: JobRunner,
    ) -> None:
        self._changes = changes
        self._base_models = base_models
        self._runs = Runs(
            engine=engine,
            objects=objects,
            base_models=base_models,
            changes=changes,
            cores=partial(cores, runner),
        )
        self._versions = Versions(engine)
        self._model_files = ModelFiles(engine, objects)
        self._evaluations = Evaluations(engine, objects)
        self._promotions = Promotions(engine, objects)
        self._overrides = Overrides(engine)
        self._policies = GatePolicies(engine, objects)
        self._jobs_dir = jobs_dir

    async def ListBaseModels(
        self, request: pb.ListBaseModelsRequest, context: Context
    ) -> pb.ListBaseModelsResponse:
        """See the proto."""
        page = await asyncio.to_thread(self._base_models.list, Query.of(request))
        return pb.ListBaseModelsResponse(
            base_models=map(convert.base_model, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def AssessTrainingSpec(
        self, request: pb.AssessTrainingSpecRequest, context: Context
    ) -> pb.TrainingAssessment:
        """See the proto."""
        assessed = await asyncio.to_thread(self._runs.assess, convert.to_proposal(request))
        return convert.assessment(assessed.assessment)

    async def DescribeParameters(
        self, request: pb.DescribeParametersRequest, context: Context
    ) -> pb.DescribeParametersResponse:
        """See the proto."""
        return convert.parameters(guide.describe(request.parameter))

    async def CreateTrainingRun(
        self, request: pb.CreateTrainingRunRequest, context: Context
    ) -> pb.TrainingRun:
        """See the proto."""
        principal = current_principal()
        model, proposal = names.parse("model", ModelName, request.model), convert.to_proposal(request)
        request_id = RequestId.of(principal.name, request)
        return convert.run(await asyncio.to_thread(self._runs.create, principal, model, proposal, request_id))

    async def GetTrainingRun(self, request: pb.GetTrainingRunRequest, context: Context) -> pb.TrainingRun:
        """See the proto."""
        return convert.run(await asyncio.to_thread(self._runs.get, _run_id(request.name)))

    async def ListTrainingRuns(
        self, request: pb.ListTrainingRunsRequest, context: Context
    ) -> pb.ListTrainingRunsResponse:
        """See the proto."""
        model = names.parse("model", ModelName, request.model) if request.model else None
        page = await asyncio.to_thread(self._runs.list, model, Query.of(request))
        return pb.ListTrainingRunsResponse(
            training_runs=[convert.run(run, full=request.view == VIEW_FULL) for run in page.items],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def WatchTrainingRun(
        self, request: pb.WatchTrainingRunRequest, context: Context
    ) -> AsyncIterator[pb.TrainingRunUpdate]:
        """See the proto."""
        id_ = _run_id(request.name)
        async for update in follow(
            self._jobs_dir / id_, self._changes, lambda: self._runs.get(id_), lambda run: run.job.state.final
        ):
            yield pb.TrainingRunUpdate(
                state=convert.RUN_STATES[update.entity.job.state],
                progress=convert.progress(update.line) if update.line else None,
                metrics=convert.step_metrics(update.line) if update.line else None,
                run=convert.run(update.entity) if update.last else None,
            )

    async def CancelTrainingRun(
        self, request: pb.CancelTrainingRunRequest, context: Context
    ) -> pb.TrainingRun:
        """See the proto."""
        principal, id_ = current_principal(), _run_id(request.name)
        return convert.run(await asyncio.to_thread(self._runs.cancel, principal, id_))

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.ModelVersion:
        """See the proto."""
        name = names.parse("name", ModelVersionName, request.name)
        return convert.version(await asyncio.to_thread(self._versions.get, name))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        """See the proto."""
        model = None if request.parent == _ALL_MODELS else names.parse("parent", ModelName, request.parent)
        page = await asyncio.to_thread(self._versions.list, model, Query.of(request))
        return pb.ListModelVersionsResponse(
            model_versions=[
                convert.version(version, full=request.view == VIEW_FULL) for version in page.items
            ],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def DownloadModelVersion(
        self, request: pb.DownloadModelVersionRequest, context: Context
    ) -> AsyncIterator[ObjectChunk]:
        """See the proto."""
        principal, name = current_principal(), names.parse("name", ModelVersionName, request.name)
        part, where = convert.to_part(request.part), request.offset
        digest, file = await asyncio.to_thread(
            self._model_files.open, principal, name, part, request.file, offset=where
        )
        async for size, offset, data in pieces(file):
            yield ObjectChunk(digest=digest, size=size, offset=offset, data=data)

    async def EvaluateModelVersion(
        self, request: pb.EvaluateModelVersionRequest, context: Context
    ) -> pb.Evaluation:
        """See the proto."""
        principal, name = current_principal(), names.parse("name", ModelVersionName, request.name)
        suites = [(suite.suite, suite.items) for suite in request.suites]
        request_id = RequestId.of(principal.name, request)
        return convert.evaluation(
            await asyncio.to_thread(self._evaluations.start, principal, name, suites, request_id)
        )

    async def WatchEvaluation(
        self, request: pb.WatchEvaluationRequest, context: Context
    ) -> AsyncIterator[pb.EvaluationUpdate]:
        """See the proto."""
        id_ = names.parse("name", EvaluationName, request.name).evaluation
        async for update in follow(
            self._jobs_dir / id_,
            self._changes,
            lambda: self._evaluations.get(id_),
            lambda found: found.job.state.final,
        ):
            yield pb.EvaluationUpdate(
                evaluation=convert.evaluation(update.entity),
                progress=convert.progress(update.line) if update.line else None,
                items_per_s=update.line.metrics.get("items_per_s", 0.0) if update.line else 0.0,
            )

    async def GetEvaluationReport(
        self, request: pb.GetEvaluationReportRequest, context: Context
    ) -> pb.EvaluationReport:
        """See the proto."""
        return convert.report(await asyncio.to_thread(self._evaluations.report, request.digest))

    async def DownloadEvaluationOutcomes(
        self, request: pb.DownloadEvaluationOutcomesRequest, context: Context
    ) -> AsyncIterator[ObjectChunk]:
        """See the proto."""
        digest, file = await asyncio.to_thread(self._evaluations.outcomes, request.digest)
        async for size, offset, data in pieces(file):
            yield ObjectChunk(digest=digest, size=size, offset=offset, data=data)

    async def PromoteModelVersion(
        self, request: pb.PromoteModelVersionRequest, context: Context
    ) -> pb.ModelVersion:
        """See the proto."""
        principal, name = current_principal(), names.parse("name", ModelVersionName, request.name)
        override = (
            names.parse("override", PromotionOverrideName, request.override) if request.override else None
        )
        request_id = RequestId.of(principal.name, request)
        return convert.version(
            await asyncio.to_thread(self._promotions.promote, principal, name, override, request_id)
        )

    async def CreatePromotionOverride(
        self, request: pb.CreatePromotionOverrideRequest, context: Context
    ) -> pb.PromotionOverride:
        """See the proto."""
        principal = current_principal()
        name = names.parse("model_version", ModelVersionName, request.model_version)
        request_id = RequestId.of(principal.name, request)
        return convert.override(
            await asyncio.to_thread(self._overrides.create, principal, name, request.reason, request_id)
        )

    async def ApprovePromotionOverride(
        self, request: pb.ApprovePromotionOverrideRequest, context: Context
    ) -> pb.PromotionOverride:
        """See the proto."""
        name = names.parse("name", PromotionOverrideName, request.name)
        return convert.override(await asyncio.to_thread(self._overrides.approve, current_principal(), name))

    async def RefusePromotionOverride(
        self, request: pb.RefusePromotionOverrideRequest, context: Context
    ) -> pb.PromotionOverride:
        """See the proto."""
        principal, name = current_principal(), names.parse("name", PromotionOverrideName, request.name)
        return convert.override(
            await asyncio.to_thread(self._overrides.refuse, principal, name, request.reason)
        )

    async def GetPromotionOverride(
        self, request: pb.GetPromotionOverrideRequest, context: Context
    ) -> pb.PromotionOverride:
        """See the proto."""
        name = names.parse("name", PromotionOverrideName, request.name)
        return convert.override(await asyncio.to_thread(self._overrides.get, name))

    async def ListPromotionOverrides(
        self, request: pb.ListPromotionOverridesRequest, context: Context
    ) -> pb.ListPromotionOverridesResponse:
        """See the proto."""
        every = request.parent in ("", _ALL_MODELS)
        model = None if every else names.parse("parent", ModelName, request.parent)
        page = await asyncio.to_thread(self._overrides.list, model, Query.of(request))
        return pb.ListPromotionOverridesResponse(
            promotion_overrides=map(convert.override, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def CreateGatePolicy(self, request: pb.CreateGatePolicyRequest, context: Context) -> pb.GatePolicy:
        """See the proto."""
        principal, name = current_principal(), names.parse("parent", GatePolicyName, request.parent)
        policy, request_id = convert.to_policy(request.spec), RequestId.of(principal.name, request)
        return convert.gate_policy(
            await asyncio.to_thread(
                self._policies.create, principal, name, policy, request.reason, request_id
            )
        )

    async def ApproveGatePolicy(
        self, request: pb.ApproveGatePolicyRequest, context: Context
    ) -> pb.GatePolicy:
        """See the proto."""
        principal, name = current_principal(), names.parse("name", GatePolicyVersionName, request.name)
        return convert.gate_policy(await asyncio.to_thread(self._policies.approve, principal, name))

    async def RefuseGatePolicy(self, request: pb.RefuseGatePolicyRequest, context: Context) -> pb.GatePolicy:
        """See the proto."""
        principal, name = current_principal(), names.parse("name", GatePolicyVersionName, request.name)
        return convert.gate_policy(
            await asyncio.to_thread(self._policies.refuse, principal, name, request.reason)
        )

    async def GetGatePolicy(self, request: pb.GetGatePolicyRequest, context: Context) -> pb.GatePolicy:
        """See the proto."""
        name: GatePolicyVersionName | GatePolicyName
        if "/versions/" in request.name:
            name = names.parse("name", GatePolicyVersionName, request.name)
        else:
            name = names.parse("name", GatePolicyName, request.name)
        return convert.gate_policy(await asyncio.to_thread(self._policies.get, name))

    async def ListGatePolicies(
        self, request: pb.ListGatePoliciesRequest, context: Context
    ) -> pb.ListGatePoliciesResponse:
        """See the proto."""
        every = request.parent in ("", _ALL_POLICIES)
        policy = None if every else names.parse("parent", GatePolicyName, request.parent)
        page = await asyncio.to_thread(self._policies.list, policy, Query.of(request))
        return pb.ListGatePoliciesResponse(
            gate_policies=map(convert.gate_policy, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def RollbackModel(self, request: pb.RollbackModelRequest, context: Context) -> pb.Promotion:
        """See the proto."""
        principal, model = current_principal(), names.parse("name", ModelName, request.name)
        request_id = RequestId.of(principal.name, request)
        return convert.promotion(
            await asyncio.to_thread(self._promotions.rollback, principal, model, request.reason, request_id)
        )

    async def ListPromotions(
        self, request: pb.ListPromotionsRequest, context: Context
    ) -> pb.ListPromotionsResponse:
        """See the proto."""
        model = names.parse("parent", ModelName, request.parent)
        page = await asyncio.to_thread(self._promotions.list, model, Query.of(request))
        return pb.ListPromotionsResponse(
            promotions=map(convert.promotion, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )


def _run_id(name: str) -> str:
    return names.parse("name", TrainingRunName, name).training_run
