"""WeChat Pay v3's seals: the Authorization header, signed answers and notifications, and their sealed resources.

A request is signed over method, target, timestamp, nonce and body, a line each; an answer or a notification over
timestamp, nonce and body (SHA256withRSA, base64). What a notification tells is encrypted with AES-256-GCM under the
merchant's APIv3 key. Source: pay.weixin.qq.com, "签名生成", "签名验证", "证书和回调报文解密".
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.providers.signing import sign, verify

SCHEMA = "WECHATPAY2-SHA256-RSA2048"
SEALING = "AEAD_AES_256_GCM"
WINDOW = timedelta(minutes=5)
"""How far a signature's time may be from ours: what is older was recorded and is played again."""
API_KEY_BYTES = 32
_PART = re.compile(r'([a-z_]+)="([^"\\]*)"')
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


def authorization(
    method: str, target: str, body: str, *, mchid: str, serial_no: str, key: rsa.RSAPrivateKey, now: datetime
) -> str:
    """The Authorization header of one request. `target` is the path with its query."""
    timestamp, nonce = str(int(now.timestamp())), secrets.token_hex(16)
    signature = sign(request_text(method, target, timestamp, nonce, body), key)
    return (
        f'{SCHEMA} mchid="{mchid}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{serial_no}"'
    )


def authorization_parts(header: str) -> dict[str, str] | None:
    """The parts of an Authorization header; None for anything else."""
    schema, _, rest = header.partition(" ")
    pairs = [_PART.fullmatch(part.strip()) for part in rest.split(",")]
    parts = {pair[1]: pair[2] for pair in pairs if pair is not None}
    needed = {"mchid", "nonce_str", "signature", "timestamp", "serial_no"}
    return parts if schema == SCHEMA and len(pairs) == len(parts) and needed == parts.keys() else None


def request_text(method: str, target: str, timestamp: str, nonce: str, body: str) -> str:
    """What a request's signature covers."""
    return f"{method}\n{target}\n{timestamp}\n{nonce}\n{body}\n"


def told_text(timestamp: str, nonce: str, body: str) -> str:
    """What the signature of an answer or a notification covers."""
    return f"{timestamp}\n{nonce}\n{body}\n"


def is_fresh(timestamp: str, now: datetime) -> bool:
    """True when a signature's time is within WINDOW of `now`."""
    if _SECONDS.fullmatch(timestamp) is None:
        return False
    return abs(int(timestamp) - now.timestamp()) <= WINDOW.total_seconds()


def distrust(headers: Mapping[str, str], body: bytes, *, key: rsa.RSAPublicKey, serial: str, now: datetime) -> str:
    """Why what WeChat is said to have told is not to be believed; "" when it is. Header names in any case."""
    named = {name.lower(): value for name, value in headers.items()}
    timestamp, nonce = named.get("wechatpay-timestamp", ""), named.get("wechatpay-nonce", "")
    if named.get("wechatpay-serial") != serial:
        return "serial"
    if not is_fresh(timestamp, now):
        return "stale"
    try:
        text = told_text(timestamp, nonce, body.decode("utf-8"))
    except UnicodeDecodeError:
        return "malformed"
    return "" if verify(text, named.get("wechatpay-signature", ""), key) else "signature"


def told_headers(body: str, *, key: rsa.RSAPrivateKey, serial: str, now: datetime) -> dict[str, str]:
    """The headers that make `distrust` say nothing: for the provider's side."""
    timestamp, nonce = str(int(now.timestamp())), secrets.token_hex(16)
    return {
        "Wechatpay-Serial": serial,
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": sign(told_text(timestamp, nonce, body), key),
    }


def seal(text: str, *, api_key: str, associated_data: str) -> dict[str, str]:
    """A notification's `resource`: for the provider's side."""
    nonce = secrets.token_hex(6)
    cipher = AESGCM(api_key.encode("ascii")).encrypt(nonce.encode(), text.encode(), associated_data.encode())
    return {
        "algorithm": SEALING,
        "ciphertext": base64.b64encode(cipher).decode("ascii"),
        "associated_data": associated_data,
        "nonce": nonce,
    }


def unseal(resource: Mapping[str, object], *, api_key: str) -> bytes | None:
    """What a `resource` says; None when it is not sealed under our key. Never raises on bad input."""
    sealed = {name: resource.get(name, "") for name in ("ciphertext", "associated_data", "nonce")}
    if resource.get("algorithm") != SEALING or not all(isinstance(value, str) for value in sealed.values()):
        return None
    try:
        cipher = base64.b64decode(str(sealed["ciphertext"]), validate=True)
        nonce, associated = str(sealed["nonce"]).encode(), str(sealed["associated_data"]).encode()
        return AESGCM(api_key.encode("ascii")).decrypt(nonce, cipher, associated)
    except (InvalidTag, binascii.Error, ValueError):
        return None


def generate_api_key() -> str:
    """A fresh APIv3 key: API_KEY_BYTES letters and digits."""
    return secrets.token_hex(API_KEY_BYTES // 2)
