// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

/// @title OPEN, the token fees and rewards are counted in
/// @notice 18 decimals. Only MINTER_ROLE can mint: the relay on a development chain, which funds
/// the distributor; elsewhere no account until the administrator grants the role.
contract OpenToken is ERC20, AccessControl {
    bytes32 public constant MINTER_ROLE = keccak256("MINTER_ROLE");

    constructor(address admin) ERC20("OPEN", "OPEN") {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
    }

    /// @notice Makes `amount` base units for `to`.
    function mint(address to, uint256 amount) external onlyRole(MINTER_ROLE) {
        _mint(to, amount);
    }
}
