"""RSA2 against signatures that OpenSSL made, and the strict reading of answers and amounts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.amounts import FEN_MAX, format_yuan, parse_yuan
from gateway.providers.signing import (
    load_private_key,
    load_public_key,
    private_key_pem,
    public_key_pem,
    response_node,
    sign,
    signing_text,
    verify,
)

VECTORS = Path(__file__).parent / "vectors"
# Made by: openssl dgst -sha256 -sign test_only_key.pem request.txt | base64 -w0
TEXT = (VECTORS / "request.txt").read_text("utf-8")
SIGNATURE = (VECTORS / "request.signature").read_text("ascii")
KEY = load_private_key((VECTORS / "test_only_key.pem").read_text("ascii"))


def test_parameters_are_joined_sorted_without_the_signature_and_empty_ones() -> None:
    parameters = {
        "version": "1.0",
        "timestamp": "2014-07-24 03:07:50",
        "sign": "x",
        "app_auth_token": "",
        "sign_type": "RSA2",
        "method": "alipay.trade.pay",
        "charset": "utf-8",
        "biz_content": '{"out_trade_no":"20150320010101001","total_amount":"88.88","subject":"咖啡 a&b=c"}',
        "app_id": "2014072300007148",
    }
    assert signing_text(parameters) == TEXT


def test_the_signature_is_openssls() -> None:
    assert sign(TEXT, KEY) == SIGNATURE
    assert verify(TEXT, SIGNATURE, KEY.public_key())


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        (TEXT + " ", SIGNATURE),
        (TEXT.replace("88.88", "88.89"), SIGNATURE),
        (TEXT, SIGNATURE[4:]),
        (TEXT, ""),
        (TEXT, "не base64"),
        (TEXT, SIGNATURE.replace("A", "B", 1)),
    ],
)
def test_anything_else_is_not_verified(text: str, signature: str) -> None:
    assert not verify(text, signature, KEY.public_key())


def test_keys_survive_their_text_form_and_weak_or_foreign_ones_are_refused() -> None:
    assert sign(TEXT, load_private_key(private_key_pem(KEY))) == SIGNATURE
    assert verify(TEXT, SIGNATURE, load_public_key(public_key_pem(KEY.public_key())))
    with pytest.raises(ValueError):  # noqa: PT011  # the library's own words
        load_public_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(ValueError):  # noqa: PT011
        load_private_key("nothing")


@pytest.mark.parametrize(
    "raw",
    [
        '{"code":"10000"}',
        '{ "code" : "10000" , "a":"\\/\\u4e2d}\\"" }',
        '{"a":{"b":[1,2,{"sign":"no"}]},"code":"10000"}',
    ],
)
def test_the_node_is_taken_as_sent(raw: str) -> None:
    body = f' {{"alipay_trade_pay_response": {raw} ,"sign":"abc"}}\n'
    assert response_node(body, "alipay_trade_pay_response") == (raw, json.loads(raw), "abc")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"sign":"a"}',
        '{"n_response":{"code":"10000"}}',
        '{"n_response":{"code":"10000"},"sign":""}',
        '{"n_response":{"code":"10000"},"sign":1}',
        '{"n_response":"text","sign":"a"}',
        '{"n_response":{"code":"1"},"n_response":{"code":"2"},"sign":"a"}',
        '{"n_response":{"code":"1","code":"2"},"sign":"a"}',
        '{"n_response":{"code":"1"},"error_response":{"code":"2"},"sign":"a"}',
        '{"n_response":{"code":"1"},"sign":"a"} {}',
        '{"n_response":{"code":"1"},"sign":"a"',
        '{"n_response":' + '{"a":' * 5000 + "1" + "}" * 5000 + ',"sign":"a"}',
    ],
)
def test_an_answer_of_another_shape_is_refused(body: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any ValueError is the contract
        response_node(body, "n_response")


@given(st.integers(0, FEN_MAX))
def test_amounts_survive_the_wire(fen: int) -> None:
    assert parse_yuan(format_yuan(fen)) == fen


@pytest.mark.parametrize(
    "text",
    ["8", "8.0", "8.000", "+8.00", "-8.00", " 8.00", "8.00\n", "8,00", "٨.٠٠", "8e2", "", ".00", 8, 8.0, None, True],
)
def test_an_amount_in_any_other_form_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"8\.00"):
        parse_yuan(text)


@pytest.mark.parametrize("fen", [1.0, True, "1"])
def test_only_integers_of_fen_are_written(fen: object) -> None:
    with pytest.raises(TypeError):
        format_yuan(fen)  # type: ignore[arg-type]
