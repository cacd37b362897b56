// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {AttributionLedger} from "../src/AttributionLedger.sol";
import {Test} from "./Test.sol";

contract AttributionLedgerTest is Test {
    AttributionLedger private ledger;

    function setUp() public {
        ledger = new AttributionLedger(address(this));
        ledger.grantRole(ledger.COMMITTER_ROLE(), address(this));
    }

    function test_first_batch_is_zero_and_begins_at_event_zero() public {
        ledger.commit(0, 0, 3, "root", "data");
        claimEqual(ledger.nextSeq(), 1, "next batch");
        claimEqual(ledger.nextEvent(), 3, "next event");
        claimTrue(ledger.roots(0) == "root", "root is kept");
    }

    function test_the_same_batch_twice_reverts() public {
        ledger.commit(0, 0, 3, "root", "data");
        vm.expectRevert(abi.encodeWithSelector(AttributionLedger.NotTheNextBatch.selector, 1, 0));
        ledger.commit(0, 0, 3, "root", "data");
    }

    function testFuzz_only_exactly_the_next_batch_is_accepted(uint64 seq, uint64 firstEvent) public {
        ledger.commit(0, 0, 5, "root", "data");
        vm.assume(seq != 1);
        vm.expectRevert(abi.encodeWithSelector(AttributionLedger.NotTheNextBatch.selector, 1, seq));
        ledger.commit(seq, 5, 1, "root", "data");
        vm.assume(firstEvent != 5);
        vm.expectRevert(abi.encodeWithSelector(AttributionLedger.NotTheNextEvent.selector, 5, firstEvent));
        ledger.commit(1, firstEvent, 1, "root", "data");
    }

    function test_empty_batches_and_empty_roots_revert() public {
        vm.expectRevert(AttributionLedger.EmptyBatch.selector);
        ledger.commit(0, 0, 0, "root", "data");
        vm.expectRevert(AttributionLedger.EmptyBatch.selector);
        ledger.commit(0, 0, 1, bytes32(0), "data");
    }

    function test_a_stranger_cannot_commit() public {
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector, STRANGER, ledger.COMMITTER_ROLE()
        );
        vm.expectRevert(refusal);
        vm.prank(STRANGER);
        ledger.commit(0, 0, 1, "root", "data");
    }

    function testFuzz_a_leaf_verifies_in_its_batch_alone(bytes32 leaf, bytes32 sibling, bytes32 other) public {
        vm.assume(leaf != other && sibling != other);
        ledger.commit(0, 0, 2, hashPair(leaf, sibling), "data");
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = sibling;
        claimTrue(ledger.verify(0, leaf, proof), "leaf is in batch 0");
        claimTrue(!ledger.verify(0, other, proof), "another leaf is not");
        claimTrue(!ledger.verify(1, leaf, proof), "batch 1 does not exist");
    }

    function testFuzz_nothing_is_in_a_batch_that_does_not_exist(uint64 seq, bytes32[] calldata proof) public view {
        claimTrue(!ledger.verify(seq, bytes32(0), proof), "no batch, no leaf");
    }

    function testFuzz_events_are_counted_without_gap(uint32[8] calldata counts) public {
        uint64 events = 0;
        for (uint64 seq = 0; seq < 8; seq++) {
            uint32 count = counts[seq] == 0 ? 1 : counts[seq];
            ledger.commit(seq, events, count, "root", "data");
            events += count;
        }
        claimEqual(ledger.nextEvent(), events, "all events");
    }
}
