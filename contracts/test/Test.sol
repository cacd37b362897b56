// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @dev The cheat codes of forge that these tests use.
interface Vm {
    function prank(address sender) external;
    function expectRevert(bytes calldata revertData) external;
    function expectRevert(bytes4 selector) external;
    function warp(uint256 timestamp) external;
    function chainId(uint256 id) external;
    function assume(bool condition) external pure;
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function toString(uint256 value) external pure returns (string memory);
    function etch(address target, bytes calldata code) external;
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
}

/// @dev What the tests share: cheat codes, claims, and names of people.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    address internal constant STRANGER = address(0xBAD);
    address internal constant ALICE = address(0xA11CE);
    address internal constant BOB = address(0xB0B);

    error Claim(string what);

    function claimTrue(bool condition, string memory what) internal pure {
        if (!condition) revert Claim(what);
    }

    function claimEqual(uint256 one, uint256 other, string memory what) internal pure {
        if (one != other) revert Claim(string.concat(what, ": ", vm.toString(one), " != ", vm.toString(other)));
    }

    function hashPair(bytes32 one, bytes32 other) internal pure returns (bytes32) {
        return one < other ? keccak256(abi.encode(one, other)) : keccak256(abi.encode(other, one));
    }
}
