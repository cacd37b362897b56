"""A certificate authority for tests: real X.509, made when asked, in files."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in files."""

    cert: Path
    key: Path

    @property
    def serial(self) -> int:
        """Returns the number that distinguishes one certificate from the next."""
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number

    def replaced_by(self, newer: Issued) -> None:
        """Moves another pair into these files, one after the other, as agents do."""
        newer.key.replace(self.key)
        newer.cert.replace(self.cert)


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common(name)
        self.file = folder / f"{name}.pem"
        certificate = self._sign(self._name, self._key.public_key(), True, "localhost", HOUR)
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, host: str = "localhost", valid: datetime.timedelta = HOUR) -> Issued:
        """A certificate for a host, valid until `valid` from now; a negative time has passed."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = Issued(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        certificate = self._sign(_common(name), key.public_key(), False, host, valid)
        issued.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
        issued.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return issued

    def _sign(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        authority: bool,
        host: str,
        valid: datetime.timedelta,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * HOUR)
            .not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def _common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
