"""Durable asks as stored: which request class a row's verb names."""

from __future__ import annotations

import msgspec

from actors.ports import (
    AskRequest,
    EndLease,
    EnrolMember,
    GrantLease,
    PaymentRequest,
    PostUses,
    PostVouchers,
    ReleaseUses,
    ReleaseVouchers,
    ReserveUses,
    ReserveVouchers,
    ReturnVouchers,
    ReverseUses,
)

_REQUESTS: dict[str, type[AskRequest]] = {
    kind.__name__: kind
    for kind in (
        EnrolMember,
        ReserveUses,
        PostUses,
        ReleaseUses,
        ReverseUses,
        GrantLease,
        EndLease,
        ReserveVouchers,
        PostVouchers,
        ReleaseVouchers,
        ReturnVouchers,
        PaymentRequest,
    )
}


def decode_request(verb: str, request: bytes) -> AskRequest:
    """The request that an outbox row holds. Raises KeyError or msgspec.ValidationError for what is none."""
    return msgspec.json.decode(request, type=_REQUESTS[verb])
