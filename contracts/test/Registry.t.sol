// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Registry} from "../src/Registry.sol";
import {Test} from "./Test.sol";

contract RegistryTest is Test {
    Registry private registry;

    function setUp() public {
        registry = new Registry(address(this));
        registry.grantRole(registry.REGISTRAR_ROLE(), address(this));
    }

    function test_a_dataset_is_written_once() public {
        registry.registerDataset("snapshot", "root", "manifest");
        (bytes32 root, bytes32 uriDigest) = registry.datasets("snapshot");
        claimTrue(root == "root" && uriDigest == "manifest", "what was registered");
        vm.expectRevert(abi.encodeWithSelector(Registry.DatasetAlreadyRegistered.selector, bytes32("snapshot"), root));
        registry.registerDataset("snapshot", "another root", "manifest");
    }

    function test_a_dataset_needs_a_root() public {
        vm.expectRevert(Registry.EmptyRoot.selector);
        registry.registerDataset("snapshot", bytes32(0), "manifest");
    }

    function test_a_models_report_and_state_move_and_its_identity_does_not() public {
        registry.recordModel("version", "base", "adapter", bytes32(0), Registry.ModelState.Trained);
        registry.recordModel("version", "base", "adapter", "report", Registry.ModelState.Evaluated);
        (,, bytes32 report, Registry.ModelState state) = registry.models("version");
        claimTrue(report == "report" && state == Registry.ModelState.Evaluated, "moved");
        vm.expectRevert(abi.encodeWithSelector(Registry.ModelIdentityIsFixed.selector, bytes32("version")));
        registry.recordModel("version", "base", "other adapter", "report", Registry.ModelState.Promoted);
    }

    function test_a_retired_model_may_be_promoted_again() public {
        registry.recordModel("version", "base", "adapter", "report", Registry.ModelState.Retired);
        registry.recordModel("version", "base", "adapter", "report", Registry.ModelState.Promoted);
        (,,, Registry.ModelState state) = registry.models("version");
        claimTrue(state == Registry.ModelState.Promoted, "rolled back to");
    }

    function test_unknown_is_not_a_state_to_record() public {
        vm.expectRevert(Registry.UnknownState.selector);
        registry.recordModel("version", "base", "adapter", "report", Registry.ModelState.Unknown);
    }

    function test_a_stranger_registers_nothing() public {
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector, STRANGER, registry.REGISTRAR_ROLE()
        );
        vm.expectRevert(refusal);
        vm.prank(STRANGER);
        registry.registerDataset("snapshot", "root", "manifest");
        vm.expectRevert(refusal);
        vm.prank(STRANGER);
        registry.recordModel("version", "base", "adapter", "report", Registry.ModelState.Trained);
    }
}
