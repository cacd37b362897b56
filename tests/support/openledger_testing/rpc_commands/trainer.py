"""Of the trainer API."""

from __future__ import annotations

from hashlib import sha256

from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.trainer.v1 import trainer_pb2

from openledger_testing.rpc_names import EMPTY, OVERRIDE, REPORT, RUN, VERSION

COMMANDS = {
    "ListBaseModels": "train bases",
    "AssessTrainingSpec": "train assess --base baseModels/b --snapshot datanets/d/snapshots/1",
    "DescribeParameters": "train parameters",
    "CreateTrainingRun": "train run m --base baseModels/b --snapshot datanets/d/snapshots/1 --no-follow",
    "GetTrainingRun": f"train get {RUN}",
    "ListTrainingRuns": "train list --model m",
    "WatchTrainingRun": f"train watch {RUN}",
    "CancelTrainingRun": f"train cancel {RUN}",
    "GetModelVersion": f"model get {VERSION}",
    "ListModelVersions": "model list m",
    "DownloadModelVersion": f"model export {VERSION} --to {{folder}}/exported",
    "EvaluateModelVersion": f"model evaluate {VERSION} --suite hellaswag=10",
    "WatchEvaluation": f"model evaluate {VERSION}",
    "GetEvaluationReport": f"model report {REPORT}",
    "DownloadEvaluationOutcomes": f"model outcomes {REPORT} --out {{folder}}/outcomes.jsonl",
    "PromoteModelVersion": f"model promote {VERSION}",
    "CreatePromotionOverride": f"model override {VERSION} --reason twenty-characters-or-more",
    "ApprovePromotionOverride": f"model approve {OVERRIDE}",
    "RefusePromotionOverride": f"model refuse {OVERRIDE} --reason no",
    "GetPromotionOverride": f"model get-override {OVERRIDE}",
    "ListPromotionOverrides": "model overrides m",
    "CreateGatePolicy": "gate create p --policy {folder}/policy.json",
    "ApproveGatePolicy": "gate approve gatePolicies/p/versions/2",
    "RefuseGatePolicy": "gate refuse gatePolicies/p/versions/2 --reason no",
    "GetGatePolicy": "gate get p",
    "ListGatePolicies": "gate list",
    "RollbackModel": "model rollback m --reason worse",
    "ListPromotions": "model promotions m",
}

_MANIFEST = b'{"base": "", "files": {}, "snapshots": []}'
"""Of a base, an adapter and a training alike."""

RESPONSES = {
    "DownloadModelVersion": ObjectChunk(
        digest="sha256:" + sha256(_MANIFEST).hexdigest(), size=len(_MANIFEST), data=_MANIFEST
    ),
    "DownloadEvaluationOutcomes": ObjectChunk(digest=EMPTY),
    "GetEvaluationReport": trainer_pb2.EvaluationReport(digest=REPORT, outcomes_digest=EMPTY),
    "WatchEvaluation": trainer_pb2.EvaluationUpdate(
        evaluation=trainer_pb2.Evaluation(state=trainer_pb2.RUN_STATE_SUCCEEDED, report_digest=REPORT)
    ),
    "GetModelVersion": trainer_pb2.ModelVersion(name=VERSION, report_digest=REPORT),
}
