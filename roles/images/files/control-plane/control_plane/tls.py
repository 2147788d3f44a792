# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's certificate, read again when its files change."""

import ssl
from pathlib import Path
from typing import Any

import grpc

from control_plane.logs import log


def credentials(certificate: Path, key: Path) -> Any:
    """Server credentials of two PEM files. Raises OSError where they cannot be read or do not fit (ssl.SSLError)."""
    last: list[tuple[bytes, bytes]] = [_read(certificate, key)]

    def fetch() -> Any:
        """Asked at every handshake; None leaves the certificate as it is."""
        try:
            # The files of a Secret change one after the other, so that they may not fit for a moment.
            now = _read(certificate, key)
        except OSError as exc:
            log("certificate", error=str(exc))
            return None
        if now == last[0]:
            return None
        last[0] = now
        log("certificate", read=str(certificate))
        return _configuration(*now)

    return grpc.dynamic_ssl_server_credentials(_configuration(*last[0]), fetch)


def _read(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    found = certificate.read_bytes(), key.read_bytes()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    return found


def _configuration(certificate: bytes, key: bytes) -> Any:
    return grpc.ssl_server_certificate_configuration([(key, certificate)])
