"""Requests and faults that no page offers: crafted forms, another mount point, missing tables."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

from httpx2 import ASGITransport, AsyncClient, Response

from machpay_gateway.core.keys.audit import AuditHead
from machpay_gateway.web.browser import csrf_token
from tests.console.harness import ADMIN, FORM, PASSWORD, URL, Rig, submitted

CROSS_SITE = {**FORM, "Sec-Fetch-Site": "cross-site"}
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"


def proof(browser: AsyncClient, path: str) -> str:
    """Return the CSRF token of a form with this *path* in *browser*."""
    return csrf_token(browser.cookies["__Host-machpay-session"], path, b"")


async def posted(browser: AsyncClient, path: str, **fields: str) -> Response:
    """Submit a form to *path* below the Console with its CSRF token, whether or not a page has such a form."""
    content = urlencode({**fields, "proof": proof(browser, path)})
    return await browser.post(f"/console{path}", content=content, headers=FORM)


async def refused_from_elsewhere(browser: AsyncClient, path: str, **fields: str) -> bool:
    """Tell whether *path* refuses each form without the right CSRF token, and with it from another site."""
    proofs = ["", "0" * 64, "ü", proof(browser, "/elsewhere")]
    sent = [(urlencode({**fields, "proof": each}), FORM) for each in proofs]
    sent.append((urlencode({**fields, "proof": proof(browser, path)}), CROSS_SITE))
    answers = [await browser.post(f"/console{path}", content=body, headers=headers) for body, headers in sent]
    return {answer.status_code for answer in answers} == {403}


async def below(rig: Rig, root_path: str) -> AsyncClient:
    """Return a browser in which the admin is signed in to the Console mounted at *root_path*."""
    transport = ASGITransport(app=rig.app, client=("192.0.2.1", 50_000), root_path=root_path)
    browser = AsyncClient(transport=transport, base_url=URL)
    rig.opened.append(browser)
    page = await browser.get(f"{root_path}/console/sign-in")
    assert (await submitted(browser, page, email=ADMIN, password=PASSWORD)).status_code == 303
    return browser


async def changed_since(rig: Rig, head: AuditHead) -> list[str]:
    """Return the actions in the audit log since *head*, without the Console's own refusals."""
    rows = await rig.gateway.store.audit_rows(head.sequence)
    return [row.action for row in rows if row.action != "console.refused"]


def database_of(rig: Rig) -> Path:
    """Return the database file."""
    return Path(rig.gateway.settings.database.removeprefix("sqlite:///"))


def is_written_down(rig: Rig, text: str) -> bool:
    """Tell whether *text* is anywhere in the database file or its write-ahead log."""
    file = database_of(rig)
    return any(text.encode() in each.read_bytes() for each in file.parent.glob(f"{file.name}*"))


async def lose(rig: Rig, *tables: str) -> None:
    """Rename *tables*, while the gateway has the database open."""
    await asyncio.to_thread(_rename, database_of(rig), tables)


def _rename(file: Path, tables: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for name in tables:
            connection.execute(f"alter table {name} rename to {name}_gone")
        connection.commit()
