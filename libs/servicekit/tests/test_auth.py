"""Only a token that its issuer signed, for us, for now, makes a principal."""

from __future__ import annotations

import base64
import hmac
import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from servicekit.auth import (
    PERMISSIONS,
    ROLE_PERMISSIONS,
    DevelopmentIssuer,
    KeySet,
    Principal,
    TokenVerifier,
    current_principal,
)
from servicekit.auth.claims import MalformedRoles, roles_in
from servicekit.auth.discovery import key_source
from servicekit.errors import InvalidArgument, Unauthenticated, Unavailable
from servicekit.testing.waiting import LONGEST_S

ISSUER, AUDIENCE = "https://login.example", "openledger"


class Provider:
    """An OIDC provider reduced to its keys: signs tokens, and publishes its key set over HTTP."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[Any, str]] = {}
        self.reads = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/.well-known"):
                    body = json.dumps(outer.configuration).encode()
                else:
                    outer.reads += 1
                    body = outer.key_set()
                self.send_response(302 if self.path == "/moved" else 200)
                if self.path == "/moved":
                    self.send_header("Location", outer.url)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.issuer}/jwks"
        self.configuration: Any = {"issuer": self.issuer, "jwks_uri": self.url}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, kid: str, algorithm: str = "ES256") -> None:
        key: Any = ec.generate_private_key(ec.SECP256R1())
        if algorithm == "RS256":
            key = rsa.generate_private_key(65537, 2048)
        self.keys[kid] = (key, algorithm)

    def key_set(self) -> bytes:
        keys = []
        for kid, (key, algorithm) in self.keys.items():
            form = RSAAlgorithm if algorithm == "RS256" else ECAlgorithm
            keys.append({**form.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": algorithm})
        return json.dumps({"keys": keys}).encode()

    def sign(self, kid: str, **changes: Any) -> str:
        now = time.time()
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 60, "roles": ["user"], **changes}
        key, algorithm = self.keys[kid]
        present = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(present, key, algorithm=algorithm, headers={"kid": kid})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    made.add("one")
    yield made
    made.close()


@pytest.fixture
def verifier(provider: Provider) -> TokenVerifier:
    return TokenVerifier(KeySet(provider.url), ISSUER, AUDIENCE)


def reason(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        verifier.verify(token)
    return refused.value.reason


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_a_signed_token_names_its_principal_and_roles(
    provider: Provider, verifier: TokenVerifier, algorithm: str
) -> None:
    provider.add("two", algorithm)
    principal = verifier.verify(provider.sign("two", roles=["user", "curator"]))
    assert principal == Principal("ann", frozenset({"user", "curator"}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": 1}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_INCOMPLETE"),
        ({"sub": None}, "TOKEN_INCOMPLETE"),
        ({"sub": ""}, "TOKEN_INCOMPLETE"),
        ({"exp": float("inf")}, "TOKEN_MALFORMED"),
        ({"exp": "99999999999"}, "TOKEN_MALFORMED"),
        ({"nbf": float("inf")}, "TOKEN_MALFORMED"),
        ({"nbf": 99999999999}, "TOKEN_NOT_YET_VALID"),
        ({"aud": "another"}, "TOKEN_AUDIENCE"),
        ({"iss": "https://evil.example"}, "TOKEN_ISSUER"),
    ],
)
def test_each_wrong_claim_is_refused_for_its_reason(
    provider: Provider, verifier: TokenVerifier, changes: dict[str, Any], expected: str
) -> None:
    assert reason(verifier, provider.sign("one", **changes)) == expected


def test_a_forged_or_unsigned_token_is_refused(provider: Provider, verifier: TokenVerifier) -> None:
    header, body, signature = provider.sign("one").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["roles"] = ["admin"]
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert reason(verifier, f"{header}.{forged}.{signature}") == "TOKEN_SIGNATURE"
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": "one"})
    assert reason(verifier, unsigned).startswith("TOKEN_")
    assert reason(verifier, "not a token") == "TOKEN_MALFORMED"
    assert reason(verifier, "x" * 20_000) == "TOKEN_MALFORMED"


def test_a_public_key_never_passes_as_a_shared_secret(provider: Provider, verifier: TokenVerifier) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": time.time() + 60, "roles": ["admin"]}
    header = {"alg": "HS256", "kid": "one", "typ": "JWT"}
    signed = b".".join(
        base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in (header, claims)
    )
    mac = hmac.new(provider.key_set(), signed, "sha256").digest()
    confused = signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
    assert reason(verifier, confused.decode()) == "TOKEN_ALGORITHM"


def test_keys_are_cached_and_read_again_for_an_unknown_key_but_not_for_each(provider: Provider) -> None:
    now = [0.0]
    verifier = TokenVerifier(KeySet(provider.url, min_interval_s=5, clock=lambda: now[0]), ISSUER, AUDIENCE)
    for _ in range(3):
        verifier.verify(provider.sign("one"))
    assert provider.reads == 1
    provider.add("two")
    rotated = provider.sign("two")
    assert reason(verifier, rotated) == "TOKEN_KEY_UNKNOWN"  # too soon to ask again
    now[0] += 5
    assert verifier.verify(rotated).name == "ann"
    assert provider.reads == 2
    for _ in range(20):
        reason(verifier, jwt.encode({}, provider.keys["one"][0], algorithm="ES256", headers={"kid": "no"}))
    assert provider.reads == 2


def test_a_withdrawn_key_stops_working(provider: Provider) -> None:
    now = [0.0]
    verifier = TokenVerifier(KeySet(provider.url, max_age_s=600, clock=lambda: now[0]), ISSUER, AUDIENCE)
    token = provider.sign("one")
    verifier.verify(token)
    provider.keys.clear()
    now[0] += 601
    assert reason(verifier, token) == "TOKEN_KEY_UNKNOWN"


def test_an_issuer_that_is_down_is_unavailable_until_keys_were_read_once(provider: Provider) -> None:
    token = provider.sign("one")
    now = [0.0]
    verifier = TokenVerifier(KeySet(provider.url, clock=lambda: now[0]), ISSUER, AUDIENCE)
    verifier.verify(token)
    provider.close()
    now[0] += 10_000
    assert verifier.verify(token).name == "ann"
    with pytest.raises(Unavailable):
        TokenVerifier(KeySet(provider.url), ISSUER, AUDIENCE).verify(token)


def test_roles_may_stand_deeper_in_the_token(provider: Provider) -> None:
    verifier = TokenVerifier(KeySet(provider.url), ISSUER, AUDIENCE, roles_claim="realm_access.roles")
    token = provider.sign("one", realm_access={"roles": ["auditor"]})
    assert verifier.verify(token).roles == {"auditor"}
    assert reason(verifier, provider.sign("one", realm_access="auditor")) == "TOKEN_ROLES"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("https://openledger.example/roles", ["curator", "user"]),
        ("scope", "curator  user"),
        ("realm_access.roles", ["curator", "user"]),
    ],
)
def test_roles_are_read_in_each_form_that_providers_give_them(claim: str, value: object) -> None:
    claims = {claim: value} if "//" in claim or "." not in claim else {"realm_access": {"roles": value}}
    assert roles_in(claims, claim) == {"curator", "user"}


@pytest.mark.parametrize(
    "value",
    [
        7,
        True,
        False,
        1.5,
        {"admin": False},
        {"admin": True},
        {"admin": None},
        {"admin": {}},
        {"admin": {"7": False}},
        {"admin": {"7": "a.example"}},
        {"user": {"7": "a.example"}, "admin": 0},
        ["user", 7],
        ["user", None],
        [["admin"]],
        [{"admin": False}],
    ],
)
def test_roles_of_another_form_are_refused(
    provider: Provider, verifier: TokenVerifier, value: object
) -> None:
    with pytest.raises(MalformedRoles):
        roles_in({"roles": value}, "roles")
    with pytest.raises(MalformedRoles):
        roles_in({"realm_access": {"roles": value}}, "realm_access.roles")
    assert reason(verifier, provider.sign("one", roles=value)) == "TOKEN_ROLES"


def test_an_object_of_roles_is_read_only_where_the_setting_says_so(provider: Provider) -> None:
    claim, granted = "urn:zitadel:iam:org:project:roles", {"user": {"7": "a.example", "9": "b.example"}}
    verifier = TokenVerifier(KeySet(provider.url), ISSUER, AUDIENCE, claim, "zitadel")
    assert verifier.verify(provider.sign("one", **{claim: granted})).roles == {"user"}
    assert (
        reason(
            TokenVerifier(KeySet(provider.url), ISSUER, AUDIENCE, claim),
            provider.sign("one", **{claim: granted}),
        )
        == "TOKEN_ROLES"
    )
    others: list[object] = [
        ["user"],
        "user",
        {"user": {}},
        {"user": True},
        {"user": {"7": "a"}, "admin": {"7": 1}},
    ]
    for value in others:
        assert reason(verifier, provider.sign("one", **{claim: value})) == "TOKEN_ROLES"


@pytest.mark.parametrize("claims", [{}, {"roles": None}, {"realm_access": {}}])
def test_without_the_claim_there_are_no_roles(claims: dict[str, object]) -> None:
    assert roles_in(claims, "roles") == roles_in(claims, "realm_access.roles") == frozenset()


@pytest.mark.parametrize("value", ["admin", ["admin"], False])
def test_a_path_that_leads_through_no_object_is_refused(value: object) -> None:
    with pytest.raises(MalformedRoles):
        roles_in({"realm_access": value}, "realm_access.roles")


def test_an_issuers_name_is_enough_to_find_its_keys(provider: Provider) -> None:
    verifier = TokenVerifier(KeySet(key_source(provider.issuer)), ISSUER, AUDIENCE)
    assert verifier.verify(provider.sign("one")).name == "ann"


@pytest.mark.parametrize(
    "configuration",
    [
        {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/jwks"},
        {"jwks_uri": "https://evil.example/jwks"},
        {"issuer": "?", "jwks_uri": "http://evil.example/jwks"},
        {"issuer": "?", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "?", "jwks_uri": 7},
        ["no object"],
    ],
)
def test_a_configuration_that_cannot_be_believed_gives_no_keys(
    provider: Provider, configuration: Any
) -> None:
    if isinstance(configuration, dict) and configuration.get("issuer") == "?":
        configuration = {**configuration, "issuer": provider.issuer}
    provider.configuration = configuration
    with pytest.raises(Unavailable):
        TokenVerifier(KeySet(key_source(provider.issuer)), ISSUER, AUDIENCE).verify(provider.sign("one"))
    assert provider.reads == 0


def test_a_redirect_is_not_followed_to_keys(provider: Provider) -> None:
    with pytest.raises(Unavailable):
        TokenVerifier(KeySet(f"{provider.issuer}/moved"), ISSUER, AUDIENCE).verify(provider.sign("one"))


def test_keys_that_were_not_renewed_for_too_long_authenticate_no_one(provider: Provider) -> None:
    now = [0.0]
    keys = KeySet(provider.url, max_age_s=600, max_stale_s=3600, clock=lambda: now[0])
    verifier, token = TokenVerifier(keys, ISSUER, AUDIENCE), provider.sign("one")
    verifier.verify(token)
    provider.close()
    now[0] += 3600
    assert verifier.verify(token).name == "ann"
    now[0] += 1
    with pytest.raises(Unavailable):
        verifier.verify(token)


def test_an_issuer_that_hangs_holds_up_one_caller_not_all(provider: Provider) -> None:
    """The keys are old, and reading them takes for ever: who is known is let in meanwhile."""
    now, asked, answer = [0.0], threading.Event(), threading.Event()

    def source() -> str:
        if now[0]:
            asked.set()
            answer.wait(LONGEST_S)
        return provider.url

    verifier = TokenVerifier(KeySet(source, max_age_s=600, clock=lambda: now[0]), ISSUER, AUDIENCE)
    token = provider.sign("one")
    verifier.verify(token)
    now[0] += 601
    held_up = threading.Thread(target=verifier.verify, args=(token,))
    held_up.start()
    assert asked.wait(LONGEST_S)
    assert verifier.verify(token).name == "ann"
    answer.set()
    held_up.join(LONGEST_S)


def development_verifier(state_dir: Path) -> TokenVerifier:
    return TokenVerifier(KeySet(str(state_dir / "issuer" / "jwks.json")), "openledger-development", AUDIENCE)


def test_the_development_issuer_signs_what_services_of_its_folder_accept(tmp_path: Path) -> None:
    token = DevelopmentIssuer(tmp_path / "a").mint("ann", ["curator", "user"])
    assert development_verifier(tmp_path / "a").verify(token) == Principal(
        "ann", frozenset({"curator", "user"})
    )
    DevelopmentIssuer(tmp_path / "b").ensure_keys()
    assert reason(development_verifier(tmp_path / "b"), token) == "TOKEN_KEY_UNKNOWN"


def test_the_private_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    DevelopmentIssuer(tmp_path).ensure_keys()
    private = tmp_path / "issuer" / "private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from servicekit.auth import DevelopmentIssuer;"
        "print(DevelopmentIssuer(Path(sys.argv[1])).mint('ann', ['user']))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    tokens = [process.communicate(timeout=LONGEST_S)[0].strip() for process in started]
    verifier = development_verifier(tmp_path)
    assert [verifier.verify(token).name for token in tokens] == ["ann"] * 4


def test_a_lost_key_set_is_written_again_from_the_same_key(tmp_path: Path) -> None:
    issuer = DevelopmentIssuer(tmp_path)
    token = issuer.mint("ann", ["user"])
    (tmp_path / "issuer" / "jwks.json").unlink()
    issuer.ensure_keys()
    assert development_verifier(tmp_path).verify(token).name == "ann"


def test_a_token_for_an_unknown_role_is_not_minted(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="unknown role 'root'"):
        DevelopmentIssuer(tmp_path).mint("ann", ["root"])
    with pytest.raises(InvalidArgument):
        DevelopmentIssuer(tmp_path).mint("", ["user"])


def test_roles_grant_what_their_job_needs_and_no_more() -> None:
    assert Principal("a", frozenset({"admin"})).may("trainer.runs.create")
    assert not Principal("a", frozenset({"auditor", "unheard-of"})).may("trainer.runs.create")
    assert not Principal("a", frozenset({"builder"})).may("trainer.overrides.approve")
    for role in ("auditor", "service"):
        assert {permission.rsplit(".", 1)[1] for permission in ROLE_PERMISSIONS[role]} == {"read"}
    assert (
        set().union(*(ROLE_PERMISSIONS[role] for role in ROLE_PERMISSIONS if role != "admin")) == PERMISSIONS
    )


def test_outside_of_a_call_there_is_no_principal() -> None:
    with pytest.raises(Unauthenticated):
        current_principal()
