"""Certificates for tests: an authority, what it issues, and the files that both sides read.

Everything is made anew for each scenario and lies in its folder; nothing is trusted beyond it.
"""

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from processes import LOOPBACK

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
# Browsers take no certificate that is for longer.
VALID = 30 * DAY
RSA_BITS = 2048
# What openssl calls it, in a TLS block and on command lines.
USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True)
class Paper:
    """A certificate and its key, in files."""

    cert: Path
    key: Path
    # Of its public key, as browsers name keys.
    public_key: bytes = field(repr=False, default=b"")


class Authority:
    """A certificate authority that writes what it issues into `folder`."""

    def __init__(self, folder: Path, name: str = "ours"):
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = named(f"{name} authority")
        usage = x509.KeyUsage(
            *(False,) * 5,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            begun(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._certificate = certificate
        self.file = folder / f"{name}-ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, usage: str, kind: str = "ecdsa", expired: bool = False) -> Paper:
        """For `localhost` and the loopback address; `usage`: server or client."""
        key = {
            "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
            "rsa": lambda: rsa.generate_private_key(65537, RSA_BITS),
        }[kind]()
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
        issuer = self._certificate.subject
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            begun(named(f"{self._name} {usage}"), issuer, key.public_key(), expired)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([USAGES[usage]]), critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return self._written(f"{usage}-{kind}{'-expired' if expired else ''}", certificate, key)

    def _written(self, what: str, certificate: x509.Certificate, key) -> Paper:
        cert_file = self._folder / f"{self._name}-{what}.pem"
        key_file = cert_file.with_suffix(".key")
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Paper(cert_file, key_file, public)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def begun(subject, issuer, public_key, expired: bool = False) -> x509.CertificateBuilder:
    until = NOW - DAY if expired else NOW + VALID
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(until)
    )


def server_block(server: Paper, client_ca: Authority | None = None) -> dict:
    """A receiver's `tls` block, with the Collector's keys."""
    block = {"cert_file": str(server.cert), "key_file": str(server.key)}
    return block | ({"client_ca_file": str(client_ca.file)} if client_ca else {})


def client_block(authority: Authority, client: Paper | None = None) -> dict:
    """An exporter's `tls` block, with the Collector's keys."""
    block = {"ca_file": str(authority.file)}
    if client:
        block |= {"cert_file": str(client.cert), "key_file": str(client.key)}
    return block


def environment(authority: Authority, client: Paper | None = None) -> dict:
    """The same for the SDKs, and for our own senders, which read the same variables."""
    # Where Python's `requests` finds the second, it does not look at the first.
    env = dict.fromkeys(
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "REQUESTS_CA_BUNDLE"), str(authority.file)
    )
    if client:
        env["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(client.cert)
        env["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(client.key)
    return env
