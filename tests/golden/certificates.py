"""A certificate that stands for all, for an Envoy that reads them when it validates."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    (folder / "tls.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def with_certificates(text: str, certificates: Path) -> str:
    """Every certificate in the same folder."""
    lines = []
    for line in text.splitlines(keepends=True):
        start, _rest, path = line.partition("filename: ")
        name = "tls.key" if path.endswith("tls.key\n") else "tls.crt"
        lines.append(f"{start}filename: {certificates}/{name}\n" if path else line)
    return "".join(lines)
