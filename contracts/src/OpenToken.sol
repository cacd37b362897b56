// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

/// @title OPEN, the token fees and rewards are counted in
/// @notice 18 decimals. Minting is for whoever holds MINTER_ROLE: on a development chain the relay, which funds
/// the distributor; elsewhere nobody unless the administrator says so.
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
