"""What a server's TLS files must be."""

import ssl

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ssasr.errors import StartRefused
from ssasr.runtime.process import load_certificate, tls_context


@pytest.fixture
def files(tmp_path):
    """Certificate and key, apart."""
    issued = trustme.CA().issue_cert("localhost")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def test_a_key_without_a_certificate_is_no_plain_http(files):
    with pytest.raises(StartRefused, match="--tls-certificate"):
        tls_context(None, str(files[1]))


def test_a_key_with_a_passphrase_does_not_wait_for_somebody_at_the_keyboard(files):
    certificate, key = files
    secret = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        secret.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
        )
    )
    with pytest.raises(StartRefused, match="passphrase"):
        tls_context(str(certificate), str(key))


def test_a_pair_that_does_not_match_changes_nothing(files, tmp_path):
    context = tls_context(*map(str, files))
    assert isinstance(context, ssl.SSLContext)
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(files[1])
    with pytest.raises(StartRefused, match="cannot use"):
        load_certificate(context, *map(str, files))


def test_nothing_is_no_tls():
    assert tls_context(None, None) is None
