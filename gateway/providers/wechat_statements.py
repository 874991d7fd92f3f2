"""WeChat Pay's statement of a day: asked for by the API, fetched by a signed request, proven by its SHA-1."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zlib
from datetime import date
from typing import IO

import httpx

from gateway.providers.wechat_bill import BillMalformed, open_bill
from gateway.providers.wechat_calls import WechatCalls
from models.domain.payments import Answer, Succeeded, Unknown
from models.domain.reconciliation import StatementFile

GZIP_BYTES_MAX = 512 * 1024 * 1024
CSV_BYTES_MAX = 4 * 1024**3
RATIO_MAX = 200
"""How far a bill may shrink before it is no bill: real ones shrink 5 to 30 times."""
CHUNK_BYTES = 256 * 1024
FETCH_TIMEOUT_S = 300.0
FETCHES_MAX = 3
_NOT_READY = frozenset({"NO_STATEMENT_EXIST", "STATEMENT_CREATING"})
_GZIP_WINDOW = zlib.MAX_WBITS | 16


class WechatStatements(WechatCalls):
    """See `Statements` for the promise."""

    async def statement(self, *, day: date) -> Answer[StatementFile]:
        why = "expired"
        query = {"bill_date": day.isoformat(), "bill_type": "ALL", "tar_type": "GZIP"}
        for _ in range(FETCHES_MAX):
            answer = await self._gateway.get("/v3/bill/tradebill", query)
            if isinstance(answer, Unknown):
                return answer
            if answer.code in _NOT_READY:
                return Unknown("not_ready", absent=True)
            url, digest = answer.fields.get("download_url"), answer.fields.get("hash_value")
            if not answer.ok or answer.fields.get("hash_type") != "SHA1" or not isinstance(url, str):
                return Unknown(f"provider:{answer.code or 'answer_malformed'}")
            fetched = await self._fetch(url, str(digest))
            if isinstance(fetched, str):
                why = fetched
                continue
            try:
                account = self._gateway.account.entity
                return Succeeded(await asyncio.to_thread(open_bill, fetched, account=account, day=day))
            except BillMalformed as malformed:
                fetched.close()
                return Unknown(f"statement_malformed: {malformed}")
        return Unknown(f"statement_not_fetched: {why}")

    async def _fetch(self, url: str, digest: str) -> IO[bytes] | str:
        """The bill, unpacked, in a file without a name; or why it could not be had, which may pass."""
        with tempfile.TemporaryFile() as packed:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    status = await self._gateway.download(url, packed, GZIP_BYTES_MAX)
            except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
                return type(error).__name__
            if status != httpx.codes.OK:
                return f"http_status:{status}"
            packed.seek(0)
            return await asyncio.to_thread(_unpack, packed, digest)


def _unpack(packed: IO[bytes], digest: str) -> IO[bytes] | str:
    """The file behind the hash, which is of the unpacked bill; "hash" when it is another one."""
    size = packed.seek(0, 2)
    packed.seek(0)
    budget = min(CSV_BYTES_MAX, max(size, 1024) * RATIO_MAX)
    plain = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the statement
    sha1, inflate = hashlib.sha1(usedforsecurity=False), zlib.decompressobj(_GZIP_WINDOW)
    try:
        while chunk := inflate.unconsumed_tail or packed.read(CHUNK_BYTES):
            text = inflate.decompress(chunk, CHUNK_BYTES)
            budget -= len(text)
            if budget < 0:
                plain.close()
                return "too_large"
            sha1.update(text)
            plain.write(text)
            if inflate.eof:
                break
    except zlib.error:
        plain.close()
        return "not_gzip"
    if sha1.hexdigest() != digest.lower():
        plain.close()
        return "hash"
    plain.seek(0)
    return plain
