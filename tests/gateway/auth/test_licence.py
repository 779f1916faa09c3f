"""The optional licence file."""

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ssasr.errors import StartRefused
from ssasr.gateway.auth.licence import Licence, read_licence

FUTURE = 4_000_000_000


@pytest.fixture(scope="module")
def vendor() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def files(folder: Path, vendor: Ed25519PrivateKey, token: str) -> tuple[Path, Path]:
    licence, key = folder / "licence.jwt", folder / "vendor.pem"
    licence.write_text(token + "\n")
    public = vendor.public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return licence, key


def signed(by: object, algorithm: str = "EdDSA", **claims: object) -> str:
    everything = {"aud": "ssasr", "exp": FUTURE, "sub": "Acme"} | claims
    present = {name: value for name, value in everything.items() if value is not None}
    return jwt.encode(present, by, algorithm=algorithm)


def test_a_good_licence(tmp_path: Path, vendor):
    read = read_licence(*files(tmp_path, vendor, signed(vendor, max_sessions=5)))
    assert read == Licence("Acme", FUTURE, 5)
    assert [read.limit(n, 0.0) for n in (3, 9)] == [3, 5]
    assert read.limit(9, FUTURE) == 0
    assert (read.state(0.0)["state"], read.state(FUTURE)["state"]) == ("valid", "expired")


def test_without_a_cap_the_configuration_counts(tmp_path: Path, vendor):
    assert read_licence(*files(tmp_path, vendor, signed(vendor))).limit(70, 0.0) == 70


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_000},
        {"exp": None},
        {"aud": "another"},
        {"aud": None},
        {"max_sessions": 0},
        {"max_sessions": True},
        {"max_sessions": "9"},
    ],
    ids=str,
)
def test_bad_claims_refuse_the_start(tmp_path: Path, vendor, claims: dict):
    with pytest.raises(StartRefused):
        read_licence(*files(tmp_path, vendor, signed(vendor, **claims)))


def test_forgeries_refuse_the_start(tmp_path: Path, vendor):
    good = signed(vendor)
    head, payload, signature = good.split(".")
    _, other, _ = signed(vendor, max_sessions=9_999).split(".")
    none = jwt.encode({"aud": "ssasr", "exp": FUTURE}, None, algorithm="none")
    hmac = signed("x" * 40, algorithm="HS256")
    forgeries = [
        signed(Ed25519PrivateKey.generate()), f"{head}.{other}.{signature}", none, hmac,
        f"{head}.{payload}.", "", "rubbish",
    ]  # fmt: skip
    for forged in forgeries:
        with pytest.raises(StartRefused):
            read_licence(*files(tmp_path, vendor, forged))


def test_a_missing_file_refuses_the_start(tmp_path: Path):
    with pytest.raises(StartRefused, match="cannot read"):
        read_licence(tmp_path / "none", tmp_path / "none")
