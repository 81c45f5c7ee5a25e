"""Looks at web pages with a real browser, headless Chromium."""

from __future__ import annotations

import asyncio
import html
import re
import shutil
from pathlib import Path

import pytest

_EXECUTABLES = ("chromium-headless-shell", "chromium", "google-chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # It refuses to run as root otherwise. The page is the dev server's own.
    "--disable-gpu",
    "--hide-scrollbars",
    "--window-size=1400,1280",
    "--virtual-time-budget=15000",  # Milliseconds that the page's scripts have to load everything.
)
_LOADED_WITHIN_S = 90


async def take_picture(url: str, file: Path) -> None:
    """Write what the window shows of a page to a PNG file."""
    await _open(url, f"--screenshot={file}")
    assert await asyncio.to_thread(file.exists), "the browser has written no picture"


async def text_of(url: str) -> list[str]:
    """Return the pieces of text of a page, in its order."""
    page = (await _open(url, "--dump-dom")).decode()
    pieces = re.findall(r">([^<>]+)<", page)
    return [text for piece in pieces if (text := html.unescape(piece).strip())]


async def _open(url: str, *options: str) -> bytes:
    found = next(filter(None, map(shutil.which, _EXECUTABLES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_EXECUTABLES)} is installed")
    process = await asyncio.create_subprocess_exec(
        found,
        *_OPTIONS,
        *options,
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        page, log = await asyncio.wait_for(process.communicate(), _LOADED_WITHIN_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, log.decode(errors="replace")
    return page
