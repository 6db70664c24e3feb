import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from faulty_s3 import FaultyS3, cut, error, google, ignore_condition
from protclip import storage
from protclip.errors import DataError
from protclip.storage import filesystems, objects, resumable
from protclip.storage.resumable import Resumable


def test_google_serves_all_that_is_asked(
    faults: FaultyS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 5 * 2**20)
    monkeypatch.setattr(objects, "SETTLE_S", 0.01)
    monkeypatch.setattr(resumable, "PIECE_BYTES", 5 * 2**20)
    faults.fail("", google)
    folder = storage.join(bucket, "d")
    content = bytes(range(256)) * (12 * 2**12)
    with storage.atomic_writer(storage.join(folder, "large")) as sink:
        sink.write(content)
    with Resumable(storage.join(folder, "joined"), "somewhere") as file:
        file.write(content[: 6 * 2**20])
        file.write(content[6 * 2**20 :])
        file.commit()
    storage.write_bytes(storage.join(folder, "small"), b"small")
    assert storage.create(storage.join(folder, "claim"), b"mine")
    found = storage.list_files(folder)
    assert [(f.uri.rpartition("/")[2], f.num_bytes) for f in found] == [
        ("claim", 4),
        ("joined", len(content)),
        ("large", len(content)),
        ("small", 5),
    ]
    assert storage.read_bytes(storage.join(folder, "large")) == content
    assert storage.sha256(storage.join(folder, "joined")) == storage.sha256(storage.join(folder, "large"))
    storage.remove(folder)
    assert not storage.exists(folder)


@pytest.mark.parametrize("server", ["ignores it", "refuses it"])
def test_of_two_writers_one_creates_where_the_server_honours_no_condition(
    server: str,
    faults: FaultyS3,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(objects, "SETTLE_S", 0.3)
    uri = storage.join(bucket, "claim")
    ready = threading.Barrier(2)

    def refuse(app, environ, start_response):
        if "HTTP_IF_NONE_MATCH" not in environ:
            return app(environ, start_response)
        return error("501 Not Implemented", "NotImplemented")(app, environ, start_response)

    faults.fail("^PUT", ignore_condition if server == "ignores it" else refuse)

    def create(data: bytes) -> bool:
        ready.wait()
        return storage.create(uri, data)

    with ThreadPoolExecutor(2) as pool, caplog.at_level(logging.WARNING):
        won = dict(zip([b"a", b"b"], pool.map(create, [b"a", b"b"]), strict=True))
    assert [data for data, first in won.items() if first] == [storage.read_bytes(uri)]
    assert not storage.create(uri, b"late")
    assert storage.read_bytes(uri) != b"late"
    assert "does not honour conditional writes" in caplog.text


def test_create_says_nothing_where_the_condition_is_honoured(
    faults: FaultyS3, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    uri = storage.join(bucket, "claim")
    faults.reset()
    assert storage.create(uri, b"mine")
    assert faults.count("^PUT") == 2
    assert not storage.create(uri, b"yours")
    assert not caplog.text
    conflict = faults.fail("^PUT", error("409 Conflict", "ConditionalRequestConflict"))
    assert not storage.create(storage.join(bucket, "other"), b"mine")
    assert conflict.done == 1


@pytest.mark.usefixtures("new_clients")
@pytest.mark.parametrize("read", [storage.read_bytes, lambda uri: storage.read_range(uri, 0, 5)])
def test_an_answer_that_breaks_off_is_asked_for_again_three_times(
    read: Callable[[str], object], faults: FaultyS3, bucket: str
) -> None:
    uri = storage.join(bucket, "d", "x")
    storage.write_bytes(uri, b"12345")
    rule = faults.fail("^GET", cut, times=3)
    assert read(uri) == b"12345"
    assert rule.done == 3


@pytest.mark.usefixtures("new_clients")
def test_a_profile_names_server_region_and_addressing(
    faults: FaultyS3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "[profile own]\n"
        f"endpoint_url = {faults.endpoint}\n"
        "region = eu-north-1\n"
        "aws_access_key_id = profiled\n"
        "aws_secret_access_key = secret\n"
        "s3 =\n  addressing_style = virtual\n"
    )
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "own")
    client = filesystems._s3_client(None, connect_timeout=1, read_timeout=1, max_attempts=1).s3
    assert client.meta.endpoint_url == faults.endpoint
    assert client.meta.region_name == "eu-north-1"
    assert client.meta.config.s3["addressing_style"] == "virtual"
    (tmp_path / "config").write_text((tmp_path / "config").read_text().replace("virtual", "auto"))
    filesystems._s3_client.cache_clear()
    storage.write_bytes(storage.join(bucket, "x"), b"x")
    assert {request.user for request in faults.requests[-1:]} == {"profiled"}
    assert faults.count(rf"^PUT {bucket.removeprefix('s3://')}/x")


@pytest.mark.usefixtures("new_clients")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"AWS_ENDPOINT_URL": "store:9000"}, "Invalid endpoint: store:9000; check the AWS settings"),
        ({"AWS_PROFILE": "none"}, r"profile \(none\) could not be found"),
    ],
)
def test_settings_that_cannot_be_are_one_message(
    names: dict[str, str], message: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=message):
        storage.exists(bucket)


def _certificate(folder: Path) -> tuple[str, str]:
    """Files of a self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(folder / "ca.pem"), str(folder / "key.pem")


@pytest.mark.usefixtures("new_clients")
def test_a_certificate_of_an_authority_of_ones_own(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _certificate(tmp_path)
    server = FaultyS3()
    stop = server.start(certificate)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        with pytest.raises(DataError, match=r"name the authority .* by AWS_CA_BUNDLE"):
            storage.exists(bucket)
        filesystems._s3_client.cache_clear()
        monkeypatch.setenv("AWS_CA_BUNDLE", certificate[0])
        storage.write_bytes(storage.join(bucket, "x"), b"over TLS")
        assert storage.read_bytes(storage.join(bucket, "x")) == b"over TLS"
    finally:
        stop()
