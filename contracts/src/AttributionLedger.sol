// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

/// @title One Merkle root for each batch of attributed answers
/// @notice A batch is accepted only as exactly the next one: whatever a relay forgets, repeats or sends twice,
/// every event is committed once and in order. Leaves: see docs/settlement.md.
contract AttributionLedger is AccessControl {
    bytes32 public constant COMMITTER_ROLE = keccak256("COMMITTER_ROLE");

    /// @notice The sequence number that the next batch must have. One storage slot with nextEvent.
    uint64 public nextSeq;
    /// @notice The number that the next batch's first event must have: all events committed so far.
    uint64 public nextEvent;
    /// @notice The root by batch.
    mapping(uint64 seq => bytes32) public roots;

    event Committed(uint64 indexed seq, uint64 firstEvent, uint32 count, bytes32 root, bytes32 dataHash);

    error NotTheNextBatch(uint64 expected, uint64 given);
    error NotTheNextEvent(uint64 expected, uint64 given);
    error EmptyBatch();

    constructor(address admin) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
    }

    /// @notice Commits a batch of `count` events, the first of which is number `firstEvent` of all.
    /// @param dataHash sha256 of the batch's data object, from which anyone can rebuild the root.
    function commit(uint64 seq, uint64 firstEvent, uint32 count, bytes32 root, bytes32 dataHash)
        external
        onlyRole(COMMITTER_ROLE)
    {
        if (seq != nextSeq) revert NotTheNextBatch(nextSeq, seq);
        if (firstEvent != nextEvent) revert NotTheNextEvent(nextEvent, firstEvent);
        if (count == 0 || root == bytes32(0)) revert EmptyBatch();
        nextSeq = seq + 1;
        nextEvent = firstEvent + count;
        roots[seq] = root;
        emit Committed(seq, firstEvent, count, root, dataHash);
    }

    /// @notice Whether a leaf is in a batch. False for a batch that does not exist.
    function verify(uint64 seq, bytes32 leaf, bytes32[] calldata proof) external view returns (bool) {
        bytes32 root = roots[seq];
        return root != bytes32(0) && MerkleProof.verifyCalldata(proof, root, leaf);
    }
}
