// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

/// @title Which snapshots were sealed and which model versions exist
/// @notice A snapshot is written once. A model version's identity (base, adapter) is written once; its report and
/// state move as it is evaluated, promoted and retired, and every move is an event.
contract Registry is AccessControl {
    bytes32 public constant REGISTRAR_ROLE = keccak256("REGISTRAR_ROLE");

    /// @dev The order is that of the trainer's states. Unknown is what an unregistered version reads as.
    enum ModelState {
        Unknown,
        Trained,
        Evaluated,
        Blocked,
        Promoted,
        Retired
    }

    struct Dataset {
        bytes32 root;
        bytes32 uriDigest;
    }

    struct Model {
        bytes32 baseDigest;
        bytes32 adapterDigest;
        bytes32 reportDigest;
        ModelState state;
    }

    /// @notice By keccak256 of the snapshot's resource name.
    mapping(bytes32 nameHash => Dataset) public datasets;
    /// @notice By the version's digest.
    mapping(bytes32 versionDigest => Model) public models;

    event DatasetRegistered(bytes32 indexed nameHash, bytes32 root, bytes32 uriDigest);
    event ModelRecorded(
        bytes32 indexed versionDigest,
        bytes32 indexed baseDigest,
        bytes32 adapterDigest,
        bytes32 reportDigest,
        ModelState state
    );

    error DatasetAlreadyRegistered(bytes32 nameHash, bytes32 root);
    error EmptyRoot();
    error UnknownState();
    error ModelIdentityIsFixed(bytes32 versionDigest);

    constructor(address admin) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
    }

    /// @notice Writes a sealed snapshot's Merkle root and the digest of its manifest, once.
    function registerDataset(bytes32 nameHash, bytes32 root, bytes32 uriDigest) external onlyRole(REGISTRAR_ROLE) {
        if (root == bytes32(0)) revert EmptyRoot();
        bytes32 known = datasets[nameHash].root;
        if (known != bytes32(0)) revert DatasetAlreadyRegistered(nameHash, known);
        datasets[nameHash] = Dataset(root, uriDigest);
        emit DatasetRegistered(nameHash, root, uriDigest);
    }

    /// @notice Writes a model version, or its new report and state.
    function recordModel(
        bytes32 versionDigest,
        bytes32 baseDigest,
        bytes32 adapterDigest,
        bytes32 reportDigest,
        ModelState state
    ) external onlyRole(REGISTRAR_ROLE) {
        if (state == ModelState.Unknown) revert UnknownState();
        Model storage model = models[versionDigest];
        if (
            model.state != ModelState.Unknown
                && (model.baseDigest != baseDigest || model.adapterDigest != adapterDigest)
        ) revert ModelIdentityIsFixed(versionDigest);
        models[versionDigest] = Model(baseDigest, adapterDigest, reportDigest, state);
        emit ModelRecorded(versionDigest, baseDigest, adapterDigest, reportDigest, state);
    }
}
