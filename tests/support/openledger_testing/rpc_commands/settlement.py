"""Of the settlement API."""

from __future__ import annotations

from openledger_testing.rpc_names import ULID

COMMANDS = {
    "GetSettlementInfo": "settle info",
    "FlushBatch": "settle flush",
    "GetBatch": "settle batch batches/1",
    "ListBatches": "settle batches",
    "WatchBatch": "settle watch batches/1",
    "GetInclusionProof": f"settle proof inferences/{ULID}",
    "GetSettlement": f"settle money inferences/{ULID}",
    "ListBalances": "settle balances",
    "ProposeRewardRoot": "settle propose",
    "GetRewardRoot": "settle root rewardRoots/1",
    "ListRewardRoots": "settle roots",
    "GetRewardProof": f"settle reward 0x{'0' * 40}",
}
