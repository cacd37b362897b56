"""Every setting of the relay. Environment: OPENLEDGER_CHAIN_RELAY_<FIELD>; shared ones OPENLEDGER_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from eth_utils.address import is_checksum_address, is_hex_address, to_checksum_address
from pydantic import Field, SecretStr, field_validator, model_validator

import chain_relay
from chain_relay.fee import Rates
from chain_relay.split import BPS, Accounts, SplitBps
from servicekit.settings import ServiceSettings

OPEN = 10**18
"""Base units of one OPEN."""


class Settings(ServiceSettings):
    """The relay's settings. Amounts are base units (10^-18 OPEN), prices wei a unit of gas."""

    service: ClassVar[str] = "chain_relay"

    rpc_url: str = Field("http://127.0.0.1:8545", description="JSON-RPC address of the chain.")
    rpc_timeout_s: float = Field(10.0, gt=0, description="Longest wait for one answer of the node.")
    chain_deploy: Literal["never", "development"] = Field(
        "never",
        description="development: deploy contracts at start when contracts_file is missing; development chains only.",
    )
    contracts_file: Path | None = Field(
        None, description="Addresses of the contracts; default <state_dir>/chain/contracts.json."
    )
    artifacts: Path = Field(
        Path(chain_relay.__file__).parents[3] / "contracts" / "build",
        description="Folder of compiled contracts (`make contracts`).",
    )

    signer_key: SecretStr | None = Field(
        None, description="Private key, development chains only; default is anvil's first account."
    )
    keystore: Path | None = Field(
        None, description="Encrypted key file (Web3 Secret Storage), for any chain."
    )
    keystore_password_file: Path | None = Field(None, description="File with the keystore's password.")

    rate_in: int = Field(OPEN // 1000, ge=0, description="Fee per 1,000 input tokens.")
    rate_out: int = Field(3 * OPEN // 1000, ge=0, description="Fee per 1,000 output tokens.")
    platform_fee: int = Field(OPEN // 10_000, ge=0, description="Fee per answer.")
    split_platform_bps: int = Field(1_000, ge=0, le=BPS, description="The platform's part of a fee.")
    split_model_owner_bps: int = Field(2_500, ge=0, le=BPS, description="The model owner's part of a fee.")
    split_stakers_bps: int = Field(500, ge=0, le=BPS, description="The stakers' part of a fee.")
    split_contributors_bps: int = Field(6_000, ge=0, le=BPS, description="The contributors' part of a fee.")
    platform_address: str = Field("", description="Account of the platform; empty holds its part.")
    stakers_address: str = Field("", description="Account of the stakers; empty holds their part.")
    owner_addresses: dict[str, str] = Field({}, description="JSON: account by principal that owns models.")

    batch_max_events: int = Field(
        10_000, ge=1, le=1_000_000, description="A batch is sealed at this many events."
    )
    batch_max_age_s: float = Field(
        60.0, gt=0, description="A batch is sealed when its first event is this old."
    )
    poll_interval_s: float = Field(0.5, gt=0, description="Pause between two reads of the chain.")
    reward_interval_s: float = Field(
        0.0,
        ge=0,
        description="Propose a reward root this often when there is something new; 0 only when asked.",
    )
    reward_certainty: Literal["committed", "settled", "final"] = Field(
        "committed", description="How sure a batch must be before its rewards are proposed."
    )
    reward_delay_s: int = Field(2, ge=0, description="Delay of the distributor when it is deployed here.")
    development_funding: int = Field(
        1_000_000 * OPEN,
        ge=0,
        description="Minted to the distributor when it is deployed on a development chain.",
    )

    max_fee_gwei: float = Field(200.0, gt=0, description="Never pay more than this for a unit of gas.")
    bump_after_s: float = Field(
        30.0, gt=0, description="Raise the price of a transaction not mined after this."
    )

    @field_validator("platform_address", "stakers_address")
    @classmethod
    def _an_address(cls, value: str) -> str:
        return checked_address(value)

    @field_validator("owner_addresses")
    @classmethod
    def _addresses(cls, value: dict[str, str]) -> dict[str, str]:
        return {owner: checked_address(address) for owner, address in value.items()}

    @model_validator(mode="after")
    def _whole_split(self) -> Self:
        self.split  # noqa: B018 - SplitBps refuses parts that do not add up
        return self

    @property
    def rates(self) -> Rates:
        """What tokens cost."""
        return Rates(rate_in=self.rate_in, rate_out=self.rate_out, platform_fee=self.platform_fee)

    @property
    def split(self) -> SplitBps:
        """The parts of a fee."""
        return SplitBps(
            platform=self.split_platform_bps,
            model_owner=self.split_model_owner_bps,
            stakers=self.split_stakers_bps,
            contributors=self.split_contributors_bps,
        )

    @property
    def accounts(self) -> Accounts:
        """Addresses that no event carries."""
        return Accounts(self.platform_address, self.stakers_address, self.owner_addresses)

    @property
    def deployment_file(self) -> Path:
        """The file with the contracts' addresses."""
        return self.contracts_file or self.state_dir / "chain" / "contracts.json"


def checked_address(text: str) -> str:
    """An address as EIP-55; "" stays "". Raises ValueError for another text or a wrong checksum."""
    if not text:
        return ""
    mixed = text[2:] != text[2:].lower() and text[2:] != text[2:].upper()
    if not is_hex_address(text) or not text.startswith("0x") or (mixed and not is_checksum_address(text)):
        raise ValueError(
            f"{text!r} is not an address: 0x, 40 hex digits, checksum as in EIP-55 if in mixed case"
        )
    return str(to_checksum_address(text))
