"""Alipay's statement of a day: asked for by the OpenAPI, fetched from an address that lives for half a minute."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import date
from typing import IO

import httpx

from gateway.providers.alipay_bill import BillMalformed, open_bill
from gateway.providers.alipay_calls import BUSINESS_FAILURE, SUCCESS, AlipayCalls, plain_code
from models.domain.payments import Answer, Succeeded, Unknown
from models.domain.reconciliation import StatementFile

ZIP_BYTES_MAX = 512 * 1024 * 1024
FETCH_TIMEOUT_S = 300.0
FETCHES_MAX = 3
"""Addresses tried before giving up: each lives 30 s, and a slow queue may outlive one."""
_NOT_READY = frozenset({"isp.bill_not_exist", "isv.invalid-arguments", "BILL_NOT_EXIST"})


class AlipayStatements(AlipayCalls):
    """See `Statements` for the promise."""

    async def statement(self, *, day: date) -> Answer[StatementFile]:
        why = "expired"
        for _ in range(FETCHES_MAX):
            answer = await self._gateway.call(
                "alipay.data.dataservice.bill.downloadurl.query", {"bill_type": "trade", "bill_date": day.isoformat()}
            )
            if isinstance(answer, Unknown):
                return answer
            if answer.code == BUSINESS_FAILURE and plain_code(answer.sub_code) in _NOT_READY:
                return Unknown("not_ready", absent=True)
            url = answer.fields.get("bill_download_url")
            if answer.code != SUCCESS or not isinstance(url, str):
                return Unknown(f"provider:{answer.sub_code or answer.code}")
            fetched = await self._fetch(url)
            if isinstance(fetched, str):
                why = fetched
                continue
            try:
                return Succeeded(
                    await asyncio.to_thread(open_bill, fetched, account=self._gateway.account.entity, day=day)
                )
            except BillMalformed as malformed:
                fetched.close()
                return Unknown(f"statement_malformed: {malformed}")
        return Unknown(f"statement_not_fetched: {why}")

    async def _fetch(self, url: str) -> IO[bytes] | str:
        """The zip in a file without a name; or why it could not be had, which may pass."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the statement
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                status = await self._gateway.download(url, file, ZIP_BYTES_MAX)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            file.close()
            return type(error).__name__
        if status != httpx.codes.OK:
            file.close()
            return f"http_status:{status}"
        file.seek(0)
        return file
