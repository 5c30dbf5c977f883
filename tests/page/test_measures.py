"""What the page costs, measured in the browser. The limits leave room for a busy machine."""

from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Browser, Page, expect
from tests.page.browser import Served, browser, opened, shared_stage

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("chromium")]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stage(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[tuple[Browser, Served]]:
    async with shared_stage(tmp_path_factory.mktemp("stage")) as server, browser() as started:
        yield started, server


@pytest.fixture
async def page(stage: tuple[Browser, Served]) -> AsyncGenerator[Page]:
    async with opened(*stage) as page:
        await expect(page.locator(".welcome")).to_be_visible()
        yield page


PAINTED = """new Promise((done) => {
  const name = "first-contentful-paint";
  const seen = (list) => list.getEntriesByName(name).forEach(({ startTime }) => done(startTime));
  new PerformanceObserver(seen).observe({ type: "paint", buffered: true });
})"""  # the entry comes some time after the paint


async def test_the_page_is_small_and_there_at_once(page: Page) -> None:
    size = await page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".reduce((sum, one) => sum + one.transferSize, 0)"
    )
    assert 20_000 < size < 200_000  # 128 KB
    await page.reload()
    await expect(page.locator(".welcome")).to_be_visible()
    painted = await page.evaluate(PAINTED)
    assert painted < 3_000  # milliseconds; below 300 on an idle machine


GROW = """async ([pieces, opening]) => {
  const { GrowingMarkdown } = await import("/page/markdown.js");
  const begin = () => {
    const place = document.createElement("div");
    document.body.append(place);
    return { place, growing: new GrowingMarkdown(place), chunks: [opening] };
  };
  const grow = ({ growing, chunks }) => {
    const began = performance.now();
    for (const piece of pieces) {
      if (chunks.at(-1).length > 2000) chunks.push("");
      chunks[chunks.length - 1] += piece;
      growing.grow(chunks);
    }
    return performance.now() - began;
  };
  const long = begin();
  for (let part = 0; part < 24; part += 1) grow(long);
  const times = { short: [], long: [] };
  // In turns, so that another process takes its time from both.
  for (let turn = 0; turn < 12; turn += 1) {
    const short = begin();
    times.short.push(grow(short));
    short.place.remove();
    times.long.push(grow(long));
  }
  const characters = long.chunks.join("").length;
  long.place.remove();
  return { ...times, characters };
}"""

PARAGRAPHS = [f"word{at} " if at % 40 else f"word{at}\n\n" for at in range(1, 401)]


@pytest.mark.parametrize("opening", ["", "```python\n"], ids=["text", "code"])
async def test_a_delta_costs_the_same_at_the_end_of_a_long_text(page: Page, opening: str) -> None:
    grown = await page.evaluate(GROW, [PARAGRAPHS, opening])
    assert grown["characters"] > 60_000
    assert min(grown["long"]) < 2 * min(grown["short"]) + 1, grown  # milliseconds


MANY = """async (pieces) => {
  const { apply, emptyView } = await import("/page/fold.js");
  const { GrowingMarkdown } = await import("/page/markdown.js");
  const places = Array.from({ length: 20 }, () => document.createElement("div"));
  document.body.append(...places);
  const texts = places.map((place) => new GrowingMarkdown(place));
  const view = emptyView();
  const turns = [];
  for (const piece of pieces) {
    const began = performance.now();
    texts.forEach((text, at) => {
      apply(view, { type: "text.delta", item_id: `m${at}`, delta: piece });
      text.grow(view.blocks[at].chunks);
    });
    turns.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve));
  }
  places.forEach((place) => place.remove());
  return turns.sort((a, b) => b - a)[4]; // other processes may take a few of the 400 their time
}"""


async def test_twenty_texts_at_once_leave_the_page_responsive(page: Page) -> None:
    await page.evaluate(MANY, PARAGRAPHS[:50])
    assert await page.evaluate(MANY, PARAGRAPHS) < 250  # milliseconds between two turns
