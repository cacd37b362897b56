// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {RewardDistributor} from "../src/RewardDistributor.sol";
import {Test} from "./Test.sol";

/// @dev The vectors that Python and the verifier read too: Solidity's own abi.encode gives the same bytes.
contract LeafTest is Test {
    string private vectors;

    struct AttributionFields {
        uint256 chainId;
        address ledger;
        uint64 seq;
        uint64 eventIndex;
        bytes32 inferenceHash;
        bytes32 modelDigest;
        bytes32 reportDigest;
        bytes32 recordDigest;
        uint256 fee;
    }

    function setUp() public {
        vectors = vm.readFile("libs/identity/identity/vectors/leaves.json");
    }

    function test_attribution_leaves_follow_the_vectors() public view {
        uint256 count = 0;
        while (vm.keyExistsJson(vectors, at("attribution", count, "leaf"))) {
            string memory n = vm.toString(count);
            bytes memory encoded = abi.encode(readAttribution(count));
            bytes memory expected = vm.parseJsonBytes(vectors, at("attribution", count, "encoded"));
            claimTrue(keccak256(encoded) == keccak256(expected), string.concat("encoding of vector ", n));
            bytes32 leaf = keccak256(bytes.concat(keccak256(encoded)));
            claimTrue(
                leaf == vm.parseJsonBytes32(vectors, at("attribution", count, "leaf")), string.concat("leaf of vector ", n)
            );
            count++;
        }
        claimEqual(count, 3, "vectors read");
    }

    function test_the_distributor_makes_the_reward_leaves_of_the_vectors() public {
        bytes memory code = address(new RewardDistributor(IERC20(address(0)), address(this), 0)).code;
        // A chain id above 64 bits cannot be set here; Python checks that vector.
        string memory leaf = at("reward", 0, "leaf");
        address target = vm.parseJsonAddress(vectors, at("reward", 0, "distributor"));
        vm.etch(target, code);
        vm.chainId(vm.parseJsonUint(vectors, at("reward", 0, "chain_id")));
        bytes32 made = RewardDistributor(target).leafOf(
            vm.parseJsonAddress(vectors, at("reward", 0, "account")),
            vm.parseJsonUint(vectors, at("reward", 0, "cumulative_amount"))
        );
        claimTrue(made == vm.parseJsonBytes32(vectors, leaf), "reward leaf");
    }

    function readAttribution(uint256 n) private view returns (AttributionFields memory fields) {
        fields.chainId = vm.parseJsonUint(vectors, at("attribution", n, "chain_id"));
        fields.ledger = vm.parseJsonAddress(vectors, at("attribution", n, "ledger"));
        fields.seq = uint64(vm.parseJsonUint(vectors, at("attribution", n, "batch_seq")));
        fields.eventIndex = uint64(vm.parseJsonUint(vectors, at("attribution", n, "event_index")));
        fields.inferenceHash = keccak256(bytes(vm.parseJsonString(vectors, at("attribution", n, "inference"))));
        fields.modelDigest = digest(at("attribution", n, "model_version_digest"));
        fields.reportDigest = digest(at("attribution", n, "report_digest"));
        fields.recordDigest = digest(at("attribution", n, "record_digest"));
        fields.fee = vm.parseJsonUint(vectors, at("attribution", n, "fee_paid"));
    }

    /// @dev "sha256:<hex>" to 32 bytes; "" is zero.
    function digest(string memory key) private view returns (bytes32 result) {
        bytes memory text = bytes(vm.parseJsonString(vectors, key));
        if (text.length == 0) return 0;
        for (uint256 i = 7; i < text.length; i++) {
            uint8 character = uint8(text[i]);
            result = (result << 4) | bytes32(uint256(character < 58 ? character - 48 : character - 87));
        }
    }

    function at(string memory kind, uint256 n, string memory field) private pure returns (string memory) {
        return string.concat(".", kind, "[", vm.toString(n), "].", field);
    }
}
