// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title What one transaction per event would be: the least that keeps the same promise
/// @notice Never deployed. The relay estimates the gas of `record` (with a state override) to say what batching saves:
/// exactly the next event, from the committer alone, its leaf in a log.
contract PerEventBaseline {
    address public committer;
    uint64 public nextEvent;

    event Recorded(uint64 indexed eventIndex, bytes32 leaf);

    error NotTheNextEvent(uint64 expected, uint64 given);
    error NotTheCommitter(address caller);

    function record(uint64 eventIndex, bytes32 leaf) external {
        if (msg.sender != committer) revert NotTheCommitter(msg.sender);
        if (eventIndex != nextEvent) revert NotTheNextEvent(nextEvent, eventIndex);
        nextEvent = eventIndex + 1;
        emit Recorded(eventIndex, leaf);
    }
}
