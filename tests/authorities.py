"""Certificates that trustme does not make, and certificates as contexts for the two ends of TLS."""

import datetime
import ssl
import warnings
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = trustme.CA()
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)


def odd_certificate(
    *names: str,
    common_name: str = "connman's tests",
    is_client_only: bool = False,
    is_self_signed: bool = False,
) -> trustme.LeafCert:
    """Make a certificate whose names are DNS names, even where they look like addresses; signed by `AUTHORITY`.

    Without names it has no such extension at all.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    authority = serialization.load_pem_private_key(AUTHORITY.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if is_client_only else ExtendedKeyUsageOID.SERVER_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if is_self_signed else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    if not is_self_signed:  # strict verification, Python 3.13's default, wants it
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    signer = key if is_self_signed else authority
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = builder.sign(signer, hashes.SHA256())
    return trustme.LeafCert(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
        [],
    )


def server_context(certificate: trustme.LeafCert, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the settings of a server that shows `certificate`, and speaks one version of TLS only if one is named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is the point of 1.0 and 1.1
            if version < ssl.TLSVersion.TLSv1_2:
                context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
    return context


def authority_file(folder: Path, authority: trustme.CA = AUTHORITY) -> Path:
    """Write the authority's certificate into a file, for those who want one."""
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path
