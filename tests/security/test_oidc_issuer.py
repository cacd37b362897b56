"""Tokens of a real OpenID provider at a real service: who is let in, who is not, and what happens when keys change."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from datanet.service import build
from datanet.settings import DatanetSettings
from openledger_client.channels import sync_channel
from openledger_client.errors import OpenLedgerError, from_rpc_error
from openledger_testing.oidc_issuer import Issuer, new_key
from servicekit.errors import StartupError
from servicekit.server import Service
from servicekit.testing.services import running
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.server

DAY_S = 24 * 3600
PASSED, COMING = int(time.time()) - DAY_S, int(time.time()) + DAY_S
CLIENTS: dict[str, dict[str, Any]] = {
    "ann": {"roles": ["curator"]},
    "no-roles": {"roles": []},
    "text": {"roles": "user curator"},
    "object": {"roles": {"curator": {"2081": "example.org"}}},
    "number": {"roles": 7},
    "expired": {"roles": ["curator"], "claims": {"exp": PASSED}},
    "early": {"roles": ["curator"], "claims": {"nbf": COMING, "exp": COMING + 60}},
    "elsewhere": {"roles": ["curator"], "claims": {"aud": "another-platform"}},
    "impostor": {"roles": ["curator"], "claims": {"iss": "https://login.example"}},
    "no-subject": {"roles": ["curator"], "claims": {"sub": None}},
}


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    return [new_key("first")]


@pytest.fixture(scope="module")
def issuer(keys: list[dict[str, Any]]) -> Iterator[Issuer]:
    with Issuer(keys, CLIENTS) as started:
        yield started


def started(folder: Path, issuer: Issuer, **more: Any) -> Service:
    """datanet as in production, but for the transport: all it knows of the issuer is its name."""
    return build(
        DatanetSettings(state_dir=folder, auth_issuer=issuer.url, insecure_transport=True, grace_s=1, **more)
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Service]:
    with running(started(tmp_path_factory.mktemp("state"), issuer)) as made:
        yield made


def create(service: Service, token: str | None, id_: str) -> pb.Datanet:
    field = pb.RecordSchema.Field(name="text", required=True)
    schema = pb.RecordSchema(fields=[field], prompt_template="{text}", completion_template="{text}")
    policy = pb.QualityPolicy(contamination_check=pb.CONTAMINATION_CHECK_OFF)
    content = pb.Datanet(licence="CC0-1.0", schema=schema, policy=policy)
    request = pb.CreateDatanetRequest(datanet_id=id_, datanet=content)
    assert service.address is not None
    with sync_channel(service.address.grpc, token) as over:
        made: pb.Datanet = DatanetServiceStub(over).CreateDatanet(request, timeout=30)
        return made


def refusal(service: Service, token: str | None) -> OpenLedgerError:
    with pytest.raises(grpc.RpcError) as refused:
        create(service, token, "never-made")
    return from_rpc_error(refused.value)


def test_a_token_of_the_issuer_lets_its_client_do_what_its_roles_permit(
    service: Service, issuer: Issuer
) -> None:
    assert create(service, issuer.token("ann"), "of-ann").owner == "ann"
    denied = refusal(service, issuer.token("no-roles"))
    assert (denied.code, denied.metadata["principal"]) == (grpc.StatusCode.PERMISSION_DENIED, "no-roles")
    assert refusal(service, None).reason == "TOKEN_MISSING"


def test_roles_may_be_one_text(service: Service, issuer: Issuer) -> None:
    assert create(service, issuer.token("text"), "of-text").owner == "text"


@pytest.mark.parametrize("client", ["number", "object"])
def test_a_form_that_the_settings_do_not_name_grants_nothing(
    service: Service, issuer: Issuer, client: str
) -> None:
    refused = refusal(service, issuer.token(client))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_ROLES")


def test_zitadels_object_is_read_where_the_settings_name_it(tmp_path: Path, issuer: Issuer) -> None:
    with running(started(tmp_path, issuer, auth_roles_shape="zitadel")) as made:
        assert create(made, issuer.token("object"), "of-object").owner == "object"
        assert refusal(made, issuer.token("ann")).reason == "TOKEN_ROLES"


def test_the_same_subject_of_another_issuer_inherits_no_rights(tmp_path: Path, issuer: Issuer) -> None:
    with running(started(tmp_path, issuer)) as made:
        assert create(made, issuer.token("ann"), "of-ann").owner == "ann"
    with Issuer([new_key("other")], CLIENTS) as other:
        with pytest.raises(StartupError, match=f"belong to subjects of the issuer '{issuer.url}'"):
            started(tmp_path, other)
        with running(started(tmp_path, other, auth_issuer_replaces=issuer.url)) as made:
            assert create(made, other.token("ann"), "also-of-ann").owner == "ann"
    with pytest.raises(StartupError, match="AUTH_ISSUER_REPLACES"):
        started(tmp_path, issuer)


def test_oauth_scopes_can_be_the_roles(tmp_path: Path, issuer: Issuer) -> None:
    with running(started(tmp_path, issuer, auth_roles_claim="scope")) as service:
        assert create(service, issuer.token("no-roles", scope="curator user"), "scoped").owner == "no-roles"
        assert refusal(service, issuer.token("ann")).code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ("expired", "TOKEN_EXPIRED"),
        ("early", "TOKEN_NOT_YET_VALID"),
        ("elsewhere", "TOKEN_AUDIENCE"),
        ("impostor", "TOKEN_ISSUER"),
        ("no-subject", "TOKEN_INCOMPLETE"),
    ],
)
def test_a_token_that_its_issuer_signed_with_a_wrong_claim_is_refused(
    service: Service, issuer: Issuer, client: str, reason: str
) -> None:
    refused = refusal(service, issuer.token(client))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


def test_another_issuer_that_uses_the_same_keys_is_another_issuer(
    service: Service, keys: list[dict[str, Any]]
) -> None:
    with Issuer(keys, CLIENTS) as other:
        assert refusal(service, other.token("ann")).reason == "TOKEN_ISSUER"


def _encoded(part: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return {**claims, "roles": ["admin"]}


def _unsigned(issuer: Issuer, token: str) -> str:
    return b".".join([_encoded({"alg": "none", "kid": "first"}), _encoded(_claims(token)), b""]).decode()


def _with_the_public_key_as_secret(form: Callable[[Any], bytes]) -> Callable[[Issuer, str], str]:
    """What a library that asks the token for its algorithm would take as a signature."""

    def forge(issuer: Issuer, token: str) -> str:
        public = RSAAlgorithm.from_jwk(issuer.published_keys()[0])
        signed = b".".join([_encoded({"alg": "HS256", "kid": "first"}), _encoded(_claims(token))])
        mac = hmac.new(form(public), signed, "sha256").digest()
        return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

    return forge


def _changed(issuer: Issuer, token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{_encoded(_claims(token)).decode()}.{signature}"


def _by_a_key_of_the_same_name(issuer: Issuer, token: str) -> str:
    key = RSAAlgorithm.from_jwk(new_key("first"))
    return jwt.encode(_claims(token), key, algorithm="RS256", headers={"kid": "first"})  # type: ignore[arg-type]


def _by_an_unknown_key(issuer: Issuer, token: str) -> str:
    key = RSAAlgorithm.from_jwk(new_key("mine"))
    return jwt.encode(_claims(token), key, algorithm="RS256", headers={"kid": "mine"})  # type: ignore[arg-type]


def _that_brings_its_own_key(issuer: Issuer, token: str) -> str:
    mine = new_key("mine")
    key: Any = RSAAlgorithm.from_jwk(mine)
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    headers = {"kid": "first", "jwk": public, "jku": "https://evil.example/jwks"}
    return jwt.encode(_claims(token), key, algorithm="RS256", headers=headers)


FORGERIES: dict[str, tuple[Callable[[Issuer, str], str], str]] = {
    "alg none": (_unsigned, "TOKEN_ALGORITHM"),
    "HS256 with the public key as PEM": (
        _with_the_public_key_as_secret(
            lambda key: key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ),
        "TOKEN_ALGORITHM",
    ),
    "HS256 with the public key as DER": (
        _with_the_public_key_as_secret(
            lambda key: key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ),
        "TOKEN_ALGORITHM",
    ),
    "claims changed": (_changed, "TOKEN_SIGNATURE"),
    "another key of the same id": (_by_a_key_of_the_same_name, "TOKEN_SIGNATURE"),
    "unknown key id": (_by_an_unknown_key, "TOKEN_KEY_UNKNOWN"),
    "key within the token": (_that_brings_its_own_key, "TOKEN_SIGNATURE"),
}


@pytest.mark.parametrize(("forge", "reason"), FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_refused(
    service: Service, issuer: Issuer, forge: Callable[[Issuer, str], str], reason: str
) -> None:
    refused = refusal(service, forge(issuer, issuer.token("ann")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_the_issuer_may_sign_by_each_algorithm_that_is_accepted(tmp_path: Path, algorithm: str) -> None:
    with (
        Issuer([new_key("one", algorithm)], CLIENTS) as issuer,
        running(started(tmp_path, issuer)) as service,
    ):
        assert create(service, issuer.token("ann"), "made").owner == "ann"


def test_after_a_rotation_new_tokens_work_and_those_of_the_withdrawn_key_stop(tmp_path: Path) -> None:
    with Issuer([new_key("first")], CLIENTS) as issuer:
        service = started(tmp_path, issuer, auth_keys_max_age_s=1)
        with running(service):
            old = issuer.token("ann")
            create(service, old, "before")
            issuer.start([new_key("second"), new_key("third", "ES256")])
            new = issuer.token("ann")
            assert jwt.get_unverified_header(new)["kid"] == "second"
            # Keys are asked for at most once in 5 s: until then an unknown one may be refused.
            eventually(lambda: _is_let_in(service, new))
            eventually(lambda: refusal(service, old).reason == "TOKEN_KEY_UNKNOWN")
            assert _is_let_in(service, new)


def test_an_unreachable_issuer_locks_out_no_caller_that_was_admitted(tmp_path: Path) -> None:
    with Issuer([new_key("first")], CLIENTS) as issuer:
        service = started(tmp_path, issuer, auth_keys_max_age_s=0.01)
        with running(service):
            token = issuer.token("ann")
            create(service, token, "before")
            issuer.stop()
            assert _is_let_in(service, token)
        late = started(tmp_path, issuer)
        with running(late):
            refused = refusal(late, token)
            assert (refused.code, refused.reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "SIGNING_KEYS_UNAVAILABLE",
            )
            issuer.start([new_key("first")])
            eventually(lambda: _is_let_in(late, issuer.token("ann")))


def _is_let_in(service: Service, token: str) -> bool:
    """Raises what is neither a yes nor one of the two noes that belong here."""
    assert service.address is not None
    with sync_channel(service.address.grpc, token) as over:
        try:
            DatanetServiceStub(over).ListDatanets(pb.ListDatanetsRequest(), timeout=30)
        except grpc.RpcError as error:
            if from_rpc_error(error).reason not in ("TOKEN_KEY_UNKNOWN", "SIGNING_KEYS_UNAVAILABLE"):
                raise
            return False
        return True
