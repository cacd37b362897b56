// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {OpenToken} from "../src/OpenToken.sol";
import {RewardDistributor} from "../src/RewardDistributor.sol";
import {Test} from "./Test.sol";

/// @dev Whatever is funded, proposed, accepted, vetoed and claimed in whatever order, two accounts' earnings only grow.
contract RewardHandler is Test {
    OpenToken public immutable token;
    RewardDistributor public immutable distributor;
    uint256 public funded;
    uint256[2] public earned;
    uint256[2] public proposed;
    uint256[2] public accepted;

    constructor() {
        token = new OpenToken(address(this));
        token.grantRole(token.MINTER_ROLE(), address(this));
        distributor = new RewardDistributor(token, address(this), 10);
        distributor.grantRole(distributor.PROPOSER_ROLE(), address(this));
        distributor.grantRole(distributor.GUARDIAN_ROLE(), address(this));
    }

    function fund(uint64 amount) external {
        token.mint(address(distributor), amount);
        funded += amount;
    }

    function earn(bool who, uint32 amount) external {
        earned[who ? 1 : 0] += amount;
    }

    function propose() external {
        bytes32 root = hashPair(distributor.leafOf(ALICE, earned[0]), distributor.leafOf(BOB, earned[1]));
        distributor.propose(distributor.nextNumber(), root, earned[0] + earned[1]);
        proposed = earned;
    }

    function accept(uint8 wait) external {
        vm.warp(block.timestamp + wait);
        distributor.accept();
        accepted = proposed;
    }

    function veto() external {
        distributor.veto();
    }

    function claim(bool who) external {
        (address account, address other) = who ? (BOB, ALICE) : (ALICE, BOB);
        (uint256 mine, uint256 theirs) = who ? (accepted[1], accepted[0]) : (accepted[0], accepted[1]);
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = distributor.leafOf(other, theirs);
        distributor.claim(account, mine, proof);
    }
}

contract RewardDistributorInvariants is Test {
    RewardHandler private handler;

    function setUp() public {
        handler = new RewardHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_never_pays_more_than_was_funded_or_accepted() public view {
        RewardDistributor distributor = handler.distributor();
        uint256 paid = handler.token().balanceOf(ALICE) + handler.token().balanceOf(BOB);
        claimEqual(paid, distributor.totalClaimed(), "what left is what was claimed");
        claimTrue(paid <= handler.funded(), "no more than funded");
        claimTrue(paid <= distributor.acceptedTotal(), "no more than accepted");
    }

    function invariant_whatever_is_accepted_can_be_paid() public view {
        RewardDistributor distributor = handler.distributor();
        uint256 owed = distributor.acceptedTotal() - distributor.totalClaimed();
        claimTrue(handler.token().balanceOf(address(distributor)) >= owed, "funds cover what is owed");
    }
}
