"""What a program that calls plugins writes, as a strict type checker must see it; never executed."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import toft
from toft.blocking import Instance
from toft_sdk import PluginError


def blocking() -> None:
    with toft.connect() as node:
        ocr = node.load("ocr", {"language": "en"}, instance="ocr-2")
        assert_type(ocr, Instance)
        # A plugin's argument may have any name, `action` and `timeout_s` among them.
        assert_type(ocr.call(image="page.png", action="a", timeout_s=3), Any)
        ocr.call("words", image="page.png")
        for chunk in ocr.stream(text="hello"):
            assert_type(chunk, Any)
        call = ocr.start(image="page.png")
        assert_type(call.cancel(), bool)
        try:
            assert_type(call.result(timeout_s=5), Any)
        except PluginError as error:
            assert_type(error.details, dict[str, Any])
        assert_type(ocr.logs(50), list[str])
        ocr.call(3)  # type: ignore[arg-type]
        node.load()  # type: ignore[call-arg]


async def asynchronous() -> None:
    async with toft.open_node() as node:
        ocr = await node.load("ocr")
        assert_type(await ocr.call(image="page.png"), Any)
        async for chunk in ocr.stream(text="hello"):
            assert_type(chunk, Any)
        call = ocr.start(image="page.png")
        assert_type(await call, Any)
        assert_type(await call.result(timeout_s=5), Any)
