"""What a browser sees of a daemon: how soon a job's page can be used, and how soon it hears of an event."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from toft.bench import browser, http_load, lines, relay
from toft.kernel import clock

LOADS = 9
TICKS, TICK_S = 60, 0.05
# When the browser had painted something and would answer a click, in milliseconds from the start, and how
# much there is to read.
_USABLE = """
new Promise((done) => {
  const look = () => {
    const [page] = performance.getEntriesByType("navigation");
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    if (page && page.domContentLoadedEventEnd > 0 && paint) {
      const letters = document.querySelector("main")?.innerText.length ?? 0;
      done([Math.max(page.domContentLoadedEventEnd, paint.startTime), letters]);
    } else {
      setTimeout(look, 5);
    }
  };
  look();
})
"""
# When each event was heard, on the clock of the machine, with what the plugin said its clock was.
_LISTEN = """
new Promise((done, fail) => {
  const heard = [];
  const source = new EventSource("/v1/events/stream?after=0&job=" + JOB);
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  source.addEventListener("progress", (event) => heard.push([now(), JSON.parse(event.data).message]));
  source.addEventListener("state", (event) => {
    if (["completed", "failed", "cancelled", "interrupted"].includes(JSON.parse(event.data).to)) {
      source.close();
      done(heard);
    }
  });
  setTimeout(() => fail(new Error("the job did not end")), 30000);
})
"""


async def measure_events(address: str, plugin: str) -> Mapping[str, float]:
    """Let a plugin report its clock, and look at the clock when the script of a page has the event."""
    async with relay.opened(address) as port, browser.opened() as chromium, chromium.page() as page:
        await page.go(f"http://localhost:{port}/livez")
        await page.evaluate("1")
        job = await _submit(address, plugin, {"count": TICKS, "pause_s": TICK_S}, "tick")
        heard = await page.evaluate(_LISTEN.replace("JOB", json.dumps(job)))
    # The plugin tells the monotonic clock, the browser the time of day.
    ahead = clock.SYSTEM.now() - clock.SYSTEM.monotonic()
    seconds = [at - ahead - float(said) for at, said in heard]
    assert len(seconds) > TICKS // 2, seconds
    return {"event_p99_ms": lines.percentile(seconds, 0.99) * 1e3}


async def measure_page(address: str, plugin: str) -> Mapping[str, float]:
    """Open the page of a job that has ended, each time in a browser that has nothing in its cache."""
    job = await _submit(address, plugin, {"count": 5, "pause_s": 0.01}, "tick")
    await _ask(address, http_load.request("GET", f"/v1/jobs/{job}/wait"), status=200)
    found = []
    async with relay.opened(address) as port, browser.opened() as chromium:
        for _ in range(LOADS):
            async with chromium.page() as page:
                await page.go(f"http://localhost:{port}/jobs/{job}")
                milliseconds, letters = await page.evaluate(_USABLE)
                assert letters > 100, "the page is empty"
                found.append(float(milliseconds))
    # The first one starts the browser's own processes.
    return {"page_first_paint_ms": statistics.median(found[1:])}


async def _submit(address: str, plugin: str, arguments: Mapping[str, Any], action: str) -> str:
    wish = {"plugin": plugin, "arguments": arguments, "action": action}
    answer = await _ask(address, http_load.request("POST", "/v1/jobs", wish), status=201)
    return str(json.loads(answer)["id"])


async def _ask(address: str, request: bytes, *, status: int) -> bytes:
    (asker,) = await http_load.connect(address, 1)
    try:
        await asker.ask_all([request], status=status)
        return asker.body
    finally:
        asker.close()
