"""Attribution records to batches, EVM commitments, proofs and claims."""
