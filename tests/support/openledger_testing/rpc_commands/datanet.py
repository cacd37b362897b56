"""Of the datanet API."""

from __future__ import annotations

from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2

from openledger_testing.rpc_names import DATANET, EMPTY, OPERATION, RECORD

COMMANDS = {
    "CreateDatanet": "datanet create d --definition {folder}/d.toml",
    "GetDatanet": f"datanet get {DATANET}",
    "ListDatanets": "datanet list",
    "RegisterContributor": "datanet contributor add d c --principal p --licence CC0-1.0",
    "ListContributors": "datanet contributor list d",
    "Contribute": "datanet contribute datanets/d/contributors/c {folder}/records.jsonl",
    "ReviewRecord": f"datanet review accepted {RECORD}",
    "WithdrawRecord": f"datanet withdraw {RECORD}",
    "ListRecords": "datanet records d --state accepted",
    "SealSnapshot": "datanet seal d --no-wait",
    "GetSealOperation": f"datanet operation get {OPERATION}",
    "ListSealOperations": "datanet operation list d",
    "WatchSealOperation": f"datanet operation watch {OPERATION}",
    "CancelSealOperation": f"datanet operation cancel {OPERATION}",
    "GetSnapshot": "datanet snapshot datanets/d/snapshots/1",
    "ListSnapshots": "datanet snapshots d",
    "DownloadSnapshot": "datanet download datanets/d/snapshots/1 --out {folder}/snapshot.jsonl",
}

RESPONSES = {
    "DownloadSnapshot": ObjectChunk(digest=EMPTY),
    "GetSnapshot": datanet_pb2.Snapshot(records_digest=EMPTY),
    "Contribute": datanet_pb2.ContributeResponse(sequence=1, state=datanet_pb2.RECORD_STATE_ACCEPTED),
}
