// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

/// @title Pays what accounts have earned, by proof under an accepted root
/// @notice A root holds every account's cumulative earnings, so that a newer root replaces an older one and a claim
/// pays the difference. A proposed root is accepted after a delay in which the guardian can veto it. The contract
/// never pays more than the accepted total, and accepts no total that it could not pay.
contract RewardDistributor is AccessControl {
    using SafeERC20 for IERC20;

    bytes32 public constant PROPOSER_ROLE = keccak256("PROPOSER_ROLE");
    bytes32 public constant GUARDIAN_ROLE = keccak256("GUARDIAN_ROLE");

    struct Proposal {
        bytes32 root;
        uint256 total;
        uint64 acceptAfter;
    }

    IERC20 public immutable token;
    /// @notice Seconds between a proposal and its acceptance.
    uint64 public immutable delay;

    /// @notice Number that the next proposal must have, from 1: a proposal sent twice is made once.
    uint64 public nextNumber = 1;
    /// @notice Number of the root that is accepted; 0 before the first.
    uint64 public acceptedNumber;
    bytes32 public acceptedRoot;
    /// @notice Sum of all cumulative amounts under the accepted root.
    uint256 public acceptedTotal;
    /// @notice The open proposal, numbered nextNumber - 1; its root is zero when there is none.
    Proposal public pending;
    mapping(address account => uint256) public claimed;
    uint256 public totalClaimed;

    event Proposed(uint64 indexed number, bytes32 root, uint256 total, uint64 acceptAfter);
    event Accepted(uint64 indexed number, bytes32 root, uint256 total);
    event Vetoed(uint64 indexed number, bytes32 root);
    event Claimed(address indexed account, uint256 amount, uint256 cumulative);

    error NotTheNextProposal(uint64 expected, uint64 given);
    error ProposalIsOpen(uint64 number);
    error NoProposal();
    error EmptyRoot();
    error TooEarly(uint64 acceptAfter);
    error TotalFell(uint256 accepted, uint256 proposed);
    error Underfunded(uint256 needed, uint256 available);
    error WrongProof();
    error NothingToClaim(uint256 alreadyClaimed);

    constructor(IERC20 token_, address admin, uint64 delay_) {
        token = token_;
        delay = delay_;
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
    }

    /// @notice Proposes the next root. `total` is the sum of all its cumulative amounts.
    function propose(uint64 number, bytes32 root, uint256 total) external onlyRole(PROPOSER_ROLE) {
        if (number != nextNumber) revert NotTheNextProposal(nextNumber, number);
        if (pending.root != bytes32(0)) revert ProposalIsOpen(number - 1);
        if (root == bytes32(0)) revert EmptyRoot();
        if (total < acceptedTotal) revert TotalFell(acceptedTotal, total);
        uint64 acceptAfter = uint64(block.timestamp) + delay;
        nextNumber = number + 1;
        pending = Proposal(root, total, acceptAfter);
        emit Proposed(number, root, total, acceptAfter);
    }

    /// @notice Accepts the open proposal when its delay is over and the contract can pay it. Anyone may call.
    function accept() external {
        Proposal memory proposal = pending;
        if (proposal.root == bytes32(0)) revert NoProposal();
        if (block.timestamp < proposal.acceptAfter) revert TooEarly(proposal.acceptAfter);
        uint256 available = token.balanceOf(address(this)) + totalClaimed;
        if (available < proposal.total) revert Underfunded(proposal.total, available);
        acceptedNumber = nextNumber - 1;
        acceptedRoot = proposal.root;
        acceptedTotal = proposal.total;
        delete pending;
        emit Accepted(acceptedNumber, proposal.root, proposal.total);
    }

    /// @notice Drops the open proposal.
    function veto() external onlyRole(GUARDIAN_ROLE) {
        bytes32 root = pending.root;
        if (root == bytes32(0)) revert NoProposal();
        delete pending;
        emit Vetoed(nextNumber - 1, root);
    }

    /// @notice Pays `account` what it has earned beyond what it has claimed. Anyone may call; only `account` is paid.
    /// @param cumulative All that the account has earned under the accepted root, in base units.
    function claim(address account, uint256 cumulative, bytes32[] calldata proof) external {
        if (!MerkleProof.verifyCalldata(proof, acceptedRoot, leafOf(account, cumulative))) revert WrongProof();
        uint256 before = claimed[account];
        if (cumulative <= before) revert NothingToClaim(before);
        uint256 amount = cumulative - before;
        // A root whose leaves add up to more than its stated total pays the stated total at most.
        if (totalClaimed + amount > acceptedTotal) revert Underfunded(totalClaimed + amount, acceptedTotal);
        claimed[account] = cumulative;
        totalClaimed += amount;
        emit Claimed(account, amount, cumulative);
        token.safeTransfer(account, amount);
    }

    /// @notice The leaf of an account: double-hashed, with this chain and this contract in it.
    function leafOf(address account, uint256 cumulative) public view returns (bytes32) {
        bytes memory encoded = abi.encode(block.chainid, address(this), account, cumulative);
        return keccak256(bytes.concat(keccak256(encoded)));
    }
}
