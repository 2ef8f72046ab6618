"""A typed client of the Madang mesh. Start at `Madang`, or `AsyncMadang`."""

from madang_client.clients import AsyncMadang, Madang
from madang_client.columns import blocks, columns
from madang_client.errors import MadangError
from madang_client.pages import apages, pages

__all__ = ["AsyncMadang", "Madang", "MadangError", "apages", "blocks", "columns", "pages"]
