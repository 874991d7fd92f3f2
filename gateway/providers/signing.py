"""RSA2 as Alipay's OpenAPI uses it: SHA256withRSA, PKCS #1 v1.5, over UTF-8 text, in base64.

A request is signed over its parameters sorted by name, `name=value` joined by `&`, without `sign` and without
empty values. A response is signed over the raw text of its response node, exactly as sent.
Source: opendocs.alipay.com, "自行实现签名" and "自行实现验签".
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

RSA_KEY_BITS = 2048
NODE_SUFFIX = "_response"


def generate_private_key() -> rsa.RSAPrivateKey:
    """A fresh RSA key of RSA_KEY_BITS. Takes up to some hundred milliseconds: not on an event loop."""
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_KEY_BITS)


def private_key_pem(key: rsa.RSAPrivateKey) -> str:
    """PKCS #8 PEM, unencrypted: the caller keeps it in a 0600 file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def public_key_pem(key: rsa.RSAPublicKey) -> str:
    """SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def load_private_key(pem: str) -> rsa.RSAPrivateKey:
    """Raises ValueError when `pem` is no RSA private key of at least RSA_KEY_BITS."""
    key = serialization.load_pem_private_key(pem.encode("ascii"), password=None)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < RSA_KEY_BITS:
        raise ValueError(f"an RSA private key of at least {RSA_KEY_BITS} bits is needed")
    return key


def load_public_key(pem: str) -> rsa.RSAPublicKey:
    """Raises ValueError when `pem` is no RSA public key of at least RSA_KEY_BITS."""
    key = serialization.load_pem_public_key(pem.encode("ascii"))
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < RSA_KEY_BITS:
        raise ValueError(f"an RSA public key of at least {RSA_KEY_BITS} bits is needed")
    return key


def signing_text(parameters: Mapping[str, str]) -> str:
    """The text that a request's signature covers."""
    return "&".join(f"{k}={v}" for k, v in sorted(parameters.items()) if k != "sign" and v != "")


def notification_text(parameters: Mapping[str, str]) -> str:
    """The text that a notification's signature covers: without the type of its signature, too."""
    return signing_text({name: value for name, value in parameters.items() if name != "sign_type"})


def sign(text: str, key: rsa.RSAPrivateKey) -> str:
    """The base64 signature of `text`."""
    return base64.b64encode(key.sign(text.encode("utf-8"), padding.PKCS1v15(), hashes.SHA256())).decode("ascii")


def verify(text: str, signature: str, key: rsa.RSAPublicKey) -> bool:
    """True when `signature` is the key owner's over exactly `text`. Never raises on bad input."""
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, text.encode("utf-8"), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def response_node(body: str, node: str) -> tuple[str, dict[str, Any], str]:
    """(raw text, parsed object, signature) of the response `{"<node>":{...},"sign":"..."}`.

    The raw text is the slice of `body` between the node's colon and what follows it, byte for byte, because the
    signature covers it as sent and not as some serialiser would write it again. `error_response` stands in for
    the node when the provider did not understand the request. Raises ValueError for any other shape: a missing
    or empty signature, a repeated name, an unexpected member that could shadow the node.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates)
    members: dict[str, tuple[str, Any]] = {}
    at = _expect(body, 0, "{")
    while True:
        name, at = _decode(decoder, body, _skip(body, at))
        if not isinstance(name, str) or name in members:
            raise ValueError("the answer's members must have distinct names")
        start = _skip(body, _expect(body, at, ":"))
        value, at = _decode(decoder, body, start)
        members[name] = (body[start:at], value)
        at = _skip(body, at)
        if body[at : at + 1] != ",":
            break
        at += 1
    if _skip(body, _expect(body, at, "}")) != len(body):
        raise ValueError("text after the answer")
    chosen = node if node in members else "error_response"
    if members.keys() - {chosen, "sign", "alipay_cert_sn"}:
        raise ValueError("unexpected members in the answer")
    if chosen not in members or "sign" not in members:
        raise ValueError("the answer has no node, or no signature")
    raw, parsed = members[chosen]
    signature = members["sign"][1]
    if not isinstance(parsed, dict) or not isinstance(signature, str) or not signature:
        raise ValueError("the answer's node or signature has the wrong type")
    return raw, parsed, signature


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name is repeated inside the answer")
    return result


def _decode(decoder: json.JSONDecoder, body: str, at: int) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(body, at)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error


def _skip(body: str, at: int) -> int:
    while at < len(body) and body[at] in " \t\r\n":
        at += 1
    return at


def _expect(body: str, at: int, mark: str) -> int:
    at = _skip(body, at)
    if body[at : at + 1] != mark:
        raise ValueError(f"expected {mark!r} at character {at}")
    return at + 1
