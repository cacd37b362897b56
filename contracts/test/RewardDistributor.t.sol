// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {OpenToken} from "../src/OpenToken.sol";
import {RewardDistributor} from "../src/RewardDistributor.sol";
import {Test} from "./Test.sol";

contract RewardDistributorTest is Test {
    uint64 private constant DELAY = 1 hours;
    OpenToken private token;
    RewardDistributor private distributor;

    function setUp() public {
        token = new OpenToken(address(this));
        token.grantRole(token.MINTER_ROLE(), address(this));
        distributor = new RewardDistributor(token, address(this), DELAY);
        distributor.grantRole(distributor.PROPOSER_ROLE(), address(this));
        distributor.grantRole(distributor.GUARDIAN_ROLE(), address(this));
    }

    function test_a_root_is_accepted_only_after_its_delay() public {
        distributor.propose(1, "root", 0);
        uint64 acceptAfter = uint64(block.timestamp) + DELAY;
        vm.warp(acceptAfter - 1);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.TooEarly.selector, acceptAfter));
        distributor.accept();
        vm.warp(acceptAfter);
        vm.prank(STRANGER);
        distributor.accept();
        claimEqual(distributor.acceptedNumber(), 1, "accepted by anyone");
    }

    function test_a_vetoed_root_is_never_accepted() public {
        distributor.propose(1, "root", 0);
        distributor.veto();
        vm.warp(block.timestamp + DELAY);
        vm.expectRevert(RewardDistributor.NoProposal.selector);
        distributor.accept();
        distributor.propose(2, "next root", 0);
    }

    function test_one_proposal_at_a_time_and_each_number_once() public {
        distributor.propose(1, "root", 0);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NotTheNextProposal.selector, 2, 1));
        distributor.propose(1, "root", 0);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.ProposalIsOpen.selector, 1));
        distributor.propose(2, "root", 0);
    }

    function test_a_total_that_cannot_be_paid_is_not_accepted() public {
        token.mint(address(distributor), 99);
        distributor.propose(1, "root", 100);
        vm.warp(block.timestamp + DELAY);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.Underfunded.selector, 100, 99));
        distributor.accept();
    }

    function testFuzz_a_claim_pays_the_difference_once(uint128 first, uint128 second) public {
        vm.assume(first > 0 && second > first);
        bytes32[] memory none = new bytes32[](0);
        acceptRoot(1, distributor.leafOf(ALICE, first), first);
        distributor.claim(ALICE, first, none);
        claimEqual(token.balanceOf(ALICE), first, "first claim");
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NothingToClaim.selector, first));
        distributor.claim(ALICE, first, none);
        acceptRoot(2, distributor.leafOf(ALICE, second), second);
        vm.prank(STRANGER);
        distributor.claim(ALICE, second, none);
        claimEqual(token.balanceOf(ALICE), second, "cumulative");
        claimEqual(token.balanceOf(STRANGER), 0, "who calls gets nothing");
    }

    function testFuzz_a_wrong_amount_or_account_or_proof_pays_nothing(uint128 earned, uint128 asked, bytes32 noise)
        public
    {
        vm.assume(earned != asked);
        acceptRoot(1, hashPair(distributor.leafOf(ALICE, earned), distributor.leafOf(BOB, earned)), uint256(earned) * 2);
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = distributor.leafOf(BOB, earned);
        vm.expectRevert(RewardDistributor.WrongProof.selector);
        distributor.claim(ALICE, asked, proof);
        vm.expectRevert(RewardDistributor.WrongProof.selector);
        distributor.claim(STRANGER, earned, proof);
        proof[0] = noise;
        vm.expectRevert(RewardDistributor.WrongProof.selector);
        distributor.claim(ALICE, earned, proof);
    }

    function test_leaves_beyond_the_stated_total_are_not_paid() public {
        token.mint(address(distributor), 1_000);
        acceptRoot(1, hashPair(distributor.leafOf(ALICE, 60), distributor.leafOf(BOB, 60)), 100);
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = distributor.leafOf(BOB, 60);
        distributor.claim(ALICE, 60, proof);
        proof[0] = distributor.leafOf(ALICE, 60);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.Underfunded.selector, 120, 100));
        distributor.claim(BOB, 60, proof);
    }

    function test_a_total_never_falls() public {
        acceptRoot(1, "root", 100);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.TotalFell.selector, 100, 99));
        distributor.propose(2, "root", 99);
    }

    function test_strangers_neither_propose_nor_veto_nor_mint() public {
        vm.prank(STRANGER);
        (bool proposed,) = address(distributor).call(abi.encodeCall(distributor.propose, (1, "root", 0)));
        distributor.propose(1, "root", 0);
        vm.prank(STRANGER);
        (bool vetoed,) = address(distributor).call(abi.encodeCall(distributor.veto, ()));
        vm.prank(STRANGER);
        (bool minted,) = address(token).call(abi.encodeCall(token.mint, (STRANGER, 1)));
        claimTrue(!proposed && !vetoed && !minted, "no role, no right");
    }

    function acceptRoot(uint64 number, bytes32 root, uint256 total) private {
        uint256 funded = token.balanceOf(address(distributor)) + distributor.totalClaimed();
        if (funded < total) token.mint(address(distributor), total - funded);
        distributor.propose(number, root, total);
        vm.warp(block.timestamp + DELAY);
        distributor.accept();
    }
}
