"""The page in a real browser: what a person sees and can do."""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect
from tests.families import NPM, is_installed
from tests.page import stage
from tests.page.browser import Served, browser, opened, served, shared_stage

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("chromium")]

expect.set_options(timeout=15_000)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def chromium() -> AsyncGenerator[Browser]:
    async with browser() as started:
        yield started


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """One server for all tests here, because a start takes a second; each is another owner."""
    async with shared_stage(tmp_path_factory.mktemp("stage")) as started:
        yield started


@pytest.fixture
async def page(chromium: Browser, server: Served) -> AsyncGenerator[Page]:
    async with opened(chromium, server) as page:
        yield page


async def say(page: Page, text: str) -> None:
    await page.fill("#message", text)
    await page.press("#message", "Enter")


def origin(page: Page) -> str:
    """Returns the address of the server of a page."""
    return page.url.partition("/#")[0]


async def shown(answer: Locator) -> str:
    """Returns the HTML of a text; the last block of a growing one is in a place of its own."""
    html = await answer.locator(".markdown").inner_html()
    return re.sub(r'<div class="open"[^>]*>(.*)</div>', r"\1", html, flags=re.DOTALL)


def answers(page: Page) -> "asyncio.Future[list[str]]":
    return asyncio.ensure_future(page.locator(".answer .markdown").all_inner_texts())


async def test_a_conversation_with_a_tool(page: Page) -> None:
    await expect(page.locator(".welcome")).to_contain_text("plays what it is asked for")
    await page.get_by_role("button", name="hello there").click()
    await expect(page.locator(".answer").last).to_contain_text("You said: hello there")
    await expect(page.locator(".threads-list .entry")).to_contain_text("hello there")
    await say(page, "work hard")
    card = page.locator(".card")
    await expect(page.locator(".answer").nth(1)).to_contain_text("I look into it.")
    await expect(card).to_contain_text("half done")
    await expect(page.locator(".answer").last).to_contain_text("The tool said: worked")
    await expect(card.locator(".card-word")).to_have_text("done")
    await card.locator(".card-head").click()
    await expect(card.locator(".arguments")).to_contain_text("seconds")
    await expect(card.locator(".output")).to_contain_text("worked")
    await expect(page.locator(".bar h1")).to_have_text("hello there")
    await page.reload()
    await expect(page.locator(".answer").nth(1)).to_contain_text("I look into it.")


async def test_a_call_is_approved_with_all_of_its_arguments_in_sight(page: Page) -> None:
    await say(page, "pay it")
    card = page.locator(".card.waits")
    await expect(card.locator(".card-word")).to_have_text("waits for approval")
    await expect(page.locator(".inspector")).to_contain_text("900 in, 40 out")  # so far
    await expect(card.locator(".arguments")).to_contain_text("99999")
    await expect(card.locator(".arguments")).to_contain_text("EVIL00000000")
    await expect(card.locator(".hidden-character")).to_have_text("U+202E")
    await page.reload()
    await page.get_by_role("button", name="Approve").click()
    await expect(page.locator(".answer").last).to_contain_text("99999 were sent")
    await expect(page.locator(".answer-form")).to_have_count(0)


async def test_a_call_is_approved_with_other_arguments(page: Page) -> None:
    await say(page, "pay it")
    form = page.locator(".answer-form")
    await form.get_by_role("button", name="Edit").click()
    await expect(form.get_by_label("note")).to_be_focused()
    await expect(form.locator(".hidden-character")).to_have_text("U+202E")
    await form.get_by_label("note").fill("Rent of May")
    await form.get_by_label("amount").fill("much")
    approve = form.get_by_role("button", name="Approve with changes")
    await approve.click()
    await expect(form.get_by_role("alert")).to_contain_text("amount is not JSON")
    await form.get_by_label("amount").fill('"much"')
    await approve.click()
    await expect(form.get_by_role("alert")).to_contain_text("amount must be of the type integer")
    await form.get_by_label("amount").fill("12345678901234567890")
    await approve.click()
    await expect(page.locator(".answer").last).to_contain_text("12345678901234567890 were sent")
    for _ in range(2):
        card = page.locator(".card")
        await card.locator(".card-head").click()
        await expect(card.locator(".arguments").first).to_contain_text("12345678901234567890")
        await expect(card.locator(".arguments").first).to_contain_text("Rent of May")
        await card.get_by_text("the model wrote").click()
        await expect(card.locator(".proposed .arguments")).to_contain_text("99999")
        await page.reload()


async def test_a_call_is_denied_at_the_desk(page: Page) -> None:
    await say(page, "pay it")
    await expect(page.locator(".threads .count")).to_have_text("1")
    await page.get_by_role("link", name="Desk").click()
    await expect(page.locator(".desk-call .arguments")).to_contain_text("99999")
    await page.get_by_placeholder("Reason").fill("too much")
    await page.get_by_role("button", name="Deny").click()
    await expect(page.locator(".empty")).to_contain_text("Nothing waits")
    await page.go_back()
    await expect(page.locator(".answer").last).to_contain_text("too much")


async def test_a_person_answers_a_question_and_another_tab_agrees(page: Page) -> None:
    await say(page, "ask me")
    await expect(page.locator(".card.waits .arguments")).to_contain_text("Which colour?")
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(other.locator(".answer-form")).to_have_count(1)
    await page.fill(".answer-form textarea", "green")
    await page.get_by_role("button", name="Answer", exact=True).click()
    for one in (page, other):
        await expect(one.locator(".answer").last).to_contain_text("The tool said: green")
        await expect(one.locator(".answer-form")).to_have_count(0)
    assert await answers(page) == await answers(other)


async def test_a_failed_tool_shows_why(page: Page) -> None:
    await say(page, "fail now")
    await expect(page.locator(".card.failed .output")).to_contain_text("the disk is on fire")


async def test_messages_are_queued_steered_and_a_run_is_stopped(page: Page) -> None:
    await say(page, "story one")
    await expect(page.locator(".activity")).to_contain_text("Writing")
    await say(page, "second")
    await expect(page.locator(".waiting-message")).to_contain_text("Waits for its turn")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator(".run-end").first).to_contain_text("Stopped.")
    await expect(page.locator(".answer").last).to_contain_text("You said: second")
    await expect(page.locator(".waiting-message")).to_have_count(0)
    await say(page, "work")
    await page.get_by_text("Now", exact=True).click()
    await say(page, "third")
    await expect(page.locator(".user").last).to_contain_text("third")
    await expect(page.locator(".answer").last).to_contain_text("You said: third")


async def test_a_hostile_text_does_nothing(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await say(page, "hostile")
    answer = page.locator(".answer").last
    await expect(answer).to_contain_text("<script>window.hacked = 1</script>")
    await expect(answer.locator("strong")).to_have_text("bold")
    assert await answer.locator("script, img, [onerror]").count() == 0
    links = await answer.locator("a").evaluate_all("all => all.map(one => one.href)")
    assert links == ["https://example.com/pixel.png", "https://example.com/path"]
    await expect(answer.locator(".host").last).to_have_text("example.com")
    assert await page.evaluate("window.hacked") is None
    assert not [url for url in requests if "example.com" in url]


async def test_a_hosted_tool_shows_what_was_searched_and_found(page: Page) -> None:
    await say(page, "search")
    for _ in range(2):
        answer = page.locator(".answer").last
        await expect(answer.locator(".sources")).to_contain_text("Lamp 7 <b>oil</b> · example.com")
        links = answer.locator(".sources a")
        found = await links.evaluate_all("all => all.map(one => one.href)")
        assert found == ["https://example.com/lamp"]
        await expect(answer.locator(".sources")).to_contain_text("javascript:window.hacked=1")
        search, read = await page.locator(".card").all()
        await expect(search.locator(".card-head")).to_contain_text("Web search")
        await expect(search.locator(".card-head")).to_contain_text("oil for lamp 7")
        await expect(search.locator(".card-word")).to_have_text("done")
        await search.locator(".card-head").click()
        await expect(search.locator(".sources a").first).to_have_attribute(
            "href", "https://example.com/lamp"
        )
        await expect(read.locator(".card-name")).to_have_text("docs: read")
        await expect(read.locator(".output.failed")).to_contain_text("It is locked.")
        await page.reload()


async def test_a_removed_message_leaves_the_page(page: Page) -> None:
    await say(page, "a secret")
    await expect(page.locator(".answer").last).to_contain_text("You said: a secret")
    await say(page, "hello")
    await expect(page.locator(".answer").last).to_contain_text("You said: hello")
    items = f"{origin(page)}/api/v1/threads/{page.url.rpartition('/')[2]}/items"
    for item in (await (await page.request.get(items)).json())["data"][:2]:
        assert (await page.request.delete(f"{items}/{item['id']}")).status == 204
    await expect(page.locator(".user")).to_have_count(1)
    await expect(page.locator(".line").filter(has_text="secret")).to_have_count(0)
    await say(page, "more")
    await expect(page.locator(".answer").last).to_contain_text("You said: more")


async def test_markdown_is_rendered_as_it_grows(page: Page) -> None:
    await say(page, "rich")
    answer = page.locator(".answer").last
    await expect(answer).to_contain_text("The end.")
    await expect(answer.locator("h1")).to_have_text("Title")
    await expect(answer.locator("li")).to_have_text(["one", "two"])
    code = answer.locator("pre code")
    assert await code.inner_text() == "print('hello')\nfor n in range(3):\n    print(n)\n"
    await expect(answer.locator("td")).to_have_text(["1", "2"])
    grown = await shown(answer)
    await page.reload()
    await expect(answer).to_contain_text("The end.")
    assert await shown(answer) == grown  # in one piece it looks as it did piece by piece


async def test_a_reload_in_the_middle_of_a_text_loses_nothing(page: Page) -> None:
    await say(page, "story one")
    await expect(page.locator(".answer")).to_contain_text("word1-3")
    await page.reload()
    await expect(page.locator(".run-end")).to_have_count(1)
    assert await answers(page) == [stage.STORY]


async def test_a_cut_connection_loses_nothing(page: Page) -> None:
    await say(page, "story one")
    await expect(page.locator(".answer")).to_contain_text("word1-3")
    await page.context.set_offline(True)
    await asyncio.sleep(0.5)
    await page.context.set_offline(False)
    await expect(page.locator(".run-end")).to_have_count(1)
    assert await answers(page) == [stage.STORY]


async def test_a_killed_server_loses_nothing_and_the_page_says_what_happened(
    chromium: Browser, tmp_path: Path
) -> None:
    async with served(tmp_path) as server, opened(chromium, server) as page:
        await say(page, "story one")
        await expect(page.locator(".answer")).to_contain_text("word1-3")
        other = await page.context.new_page()
        await other.goto(page.url)
        await expect(other.locator(".answer")).to_contain_text("word1-3")
        await server.end()
        await expect(page.locator(".connection")).to_contain_text("Reconnecting")
        await server.start()
        for one in (page, other):
            await expect(one.locator(".run-end")).to_have_count(1)
            await expect(one.locator(".connection")).to_have_count(0)
            assert await answers(one) == [stage.STORY]
        await expect(page.locator(".note.interrupted")).to_contain_text("broke off")


async def test_an_edited_message_continues_in_a_copy(page: Page) -> None:
    await say(page, "first")
    await expect(page.locator(".answer").last).to_contain_text("You said: first")
    await say(page, "second")
    await expect(page.locator(".answer").last).to_contain_text("You said: second")
    before = page.url
    await page.locator(".user").last.hover()
    await page.locator(".user").last.get_by_role("button", name="Edit").click()
    await expect(page.locator("#message")).to_have_value("second")
    await say(page, "another")
    await expect(page.locator(".answer").last).to_contain_text("You said: another")
    assert page.url != before
    await expect(page.locator(".user")).to_have_text([re.compile("first"), re.compile("another")])
    await expect(page.locator(".threads-list").get_by_text("a copy")).to_have_count(1)
    await page.get_by_role("link", name="The original conversation").click()
    await expect(page.locator(".user")).to_have_text([re.compile("first"), re.compile("second")])
    assert page.url == before


async def test_files_go_with_a_message(page: Page) -> None:
    await expect(page.locator(".welcome")).to_be_visible()
    await page.locator("input[type=file]").set_input_files(
        [
            {"name": "dot.png", "mimeType": "image/png", "buffer": PNG},
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"a note\n" * 2000},
        ]
    )
    await expect(page.locator(".files li")).to_have_count(2)
    await say(page, "hello files")
    await expect(page.locator(".answer").last).to_contain_text("You said: hello files")
    message = page.locator(".user").last
    for _ in range(2):
        image = message.locator("img")
        await expect(image).to_be_visible()
        assert await image.evaluate("one => one.naturalWidth") == 1
        await expect(message.locator("a.attachment")).to_have_text("notes.txt")
        await page.reload()
    async with page.expect_download() as download:
        await message.locator("a.attachment").click()
    path = await (await download.value).path()
    assert await asyncio.to_thread(path.read_bytes) == b"a note\n" * 2000


async def test_the_inspector_shows_the_run(page: Page) -> None:
    await say(page, "work")
    await expect(page.locator(".answer").last).to_contain_text("The tool said")
    inspector = page.locator(".inspector")
    await expect(inspector.locator(".status")).to_have_text("completed")
    await expect(inspector.locator(".timeline-label")).to_have_text(
        ["scripted", "work", "scripted"]
    )
    await expect(inspector).to_contain_text("1,800 in, 80 out")
    await inspector.get_by_role("tab", name="Context").click()
    await expect(inspector).to_contain_text("900 tokens")
    await inspector.get_by_role("tab", name="Events").click()
    await expect(inspector.locator(".events li").first).to_contain_text("run.completed")


async def test_memory_is_shown_changed_and_taken_back(page: Page) -> None:
    await say(page, "hello")  # so that the page sees each event of the next run
    await expect(page.locator(".answer").last).to_contain_text("You said: hello")
    await say(page, "remember it")
    await expect(page.locator(".answer").last).to_contain_text("The tool said")
    await expect(page.locator(".line.note")).to_contain_text("Memory updated: human")
    inspector = page.locator(".inspector")
    await inspector.get_by_role("tab", name="Memory").click()
    block = inspector.locator(".memory")
    await expect(block.locator("pre")).to_have_text("Name: Ada\nLikes tea.")
    await block.get_by_role("button", name="Changes").click()
    await expect(block.locator(".diff .added").first).to_contain_text("Likes tea.")
    await block.get_by_role("button", name="Undo").click()
    await expect(block.locator("pre")).to_have_text("Name: Ada")
    await block.get_by_role("button", name="Edit").click()
    await block.locator("textarea").fill("Name: Grace")
    await block.get_by_role("button", name="Save").click()
    await expect(block.locator("pre")).to_have_text("Name: Grace")


async def test_schedules_are_listed_and_cancelled(page: Page) -> None:
    await say(page, "hello")
    await expect(page.locator(".answer").last).to_contain_text("You said: hello")
    inspector = page.locator(".inspector")
    await inspector.get_by_role("tab", name="Schedules").click()
    await expect(inspector).to_contain_text("No message is scheduled")
    path = f"{origin(page)}/api/v1/threads/{page.url.rpartition('/')[2]}/schedules"
    for body in (
        {"message": "Water the plants.", "after": 7200},
        {"message": "Good\u202emorning.", "cron": "0 9 * * 1-5", "tz": "Europe/Berlin"},
    ):
        made = await page.request.post(path, data=body)
        assert made.status == 201, await made.text()
    once = inspector.locator(".schedule", has_text="Water the plants.")
    await expect(once).to_contain_text("in 2 hr")
    await expect(once).to_contain_text("once")
    daily = inspector.locator(".schedule", has_text="morning")
    await expect(daily).to_contain_text("0 9 * * 1-5 (Europe/Berlin)")
    await expect(daily.locator(".hidden-character")).to_have_text("U+202E")
    await once.get_by_role("button", name="Cancel").click()
    await expect(inspector.locator(".schedule")).to_have_count(1)
    made = await page.request.post(path, data={"message": "hello clock", "after": 0.1})
    assert made.status == 201
    await expect(page.locator(".answer").last).to_contain_text("You said: hello clock")
    await expect(inspector.locator(".schedule")).to_have_count(1)


HIDE = """
Object.defineProperty(document, "hidden", { get: () => window.isHidden ?? false });
window.hide = (isHidden) => {
  window.isHidden = isHidden;
  document.dispatchEvent(new Event("visibilitychange"));
};
"""


async def test_eight_tabs_share_the_connections_of_a_browser(page: Page) -> None:
    """Over HTTP/1.1 a browser has six connections to a server, and a stream needs one."""
    await say(page, "first")
    await expect(page.locator(".answer").last).to_contain_text("You said: first")
    await page.context.add_init_script(HIDE)
    tabs: list[Page] = []
    for _ in range(8):
        tab = await page.context.new_page()
        await tab.goto(page.url)
        await expect(tab.locator(".answer").last).to_contain_text("You said: first")
        await tab.evaluate("hide(true)")
        tabs.append(tab)
    await page.close()
    last = tabs[-1]
    await last.evaluate("hide(false)")
    await say(last, "story one")
    await expect(last.locator(".answer").last).to_contain_text("word1-3")
    await tabs[4].evaluate("hide(false)")  # in the middle of a text
    await expect(last.locator(".run-end")).to_have_count(2)
    await expect(tabs[0].locator(".run-end")).to_have_count(2)  # it keeps its connection
    await expect(tabs[2].locator(".run-end")).to_have_count(1)
    await tabs[0].close()  # another hidden tab gets what it had
    for at in (2, 3, 4):
        await tabs[at].evaluate("hide(false)")
    for tab in (last, *tabs[2:5]):
        await expect(tab.locator(".run-end")).to_have_count(2)
        assert (await answers(tab))[-1] == stage.STORY


async def test_a_hidden_tab_tells_that_a_call_waits(page: Page) -> None:
    await page.context.add_init_script(
        HIDE + "window.told = []; window.Notification = class { static permission = 'granted';"
        " constructor(title, { body }) { told.push([title, body]); } };"
    )
    await page.reload()
    await say(page, "pay it")
    await expect(page.locator(".answer-form")).to_be_visible()
    await expect(page).to_have_title("Waits for you: pay it")
    await expect(page.locator(".threads .count")).to_have_text("1")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.locator(".answer").last).to_contain_text("99999 were sent")
    await expect(page).to_have_title("pay it")
    assert await page.evaluate("told") == []
    await page.evaluate("hide(true)")
    await say(page, "ask later")
    await expect(page).to_have_title("Waits for you: pay it")
    assert await page.evaluate("told") == [["pay it", "A call waits for your answer."]]


async def test_a_conversation_is_renamed_and_deleted(page: Page) -> None:
    await say(page, "first words")
    await expect(page.locator(".answer").last).to_contain_text("You said: first words")
    title, entry = page.get_by_label("Title"), page.locator(".threads-list .entry")
    for name, key, shown in (
        ("x", "Escape", "first words"),
        ("A better title", "Enter", "A better title"),
    ):
        await page.get_by_role("button", name="Rename").click()
        await expect(title).to_be_focused()
        await title.fill(name)
        await title.press(key)
        await expect(page.locator(".talk h1")).to_have_text(shown)
        await expect(entry).to_contain_text(shown)
    page.once("dialog", lambda dialog: dialog.dismiss())
    await page.get_by_role("button", name="Delete the conversation").click()
    await expect(page.locator(".talk h1")).to_have_text("A better title")
    page.once("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Delete the conversation").click()
    await expect(page.locator(".welcome")).to_be_visible()
    await expect(entry).to_have_count(0)


async def test_what_is_being_written_survives_a_reload(page: Page) -> None:
    await page.fill("#message", "not sent")
    await page.reload()
    await expect(page.locator("#message")).to_have_value("not sent")
    await page.press("#message", "Enter")
    await expect(page.locator(".answer").last).to_contain_text("You said: not sent")
    await expect(page.locator("#message")).to_have_value("")
    await page.fill("#message", "half a")
    await page.locator(".user").last.hover()
    await page.locator(".user").last.get_by_role("button", name="Edit").click()
    await expect(page.locator("#message")).to_have_value("not sent")
    await page.get_by_role("button", name="Keep the original").click()
    await expect(page.locator("#message")).to_have_value("half a")
    await page.get_by_role("link", name="New conversation").click()
    await expect(page.locator("#message")).to_have_value("")
    await page.go_back()
    await expect(page.locator("#message")).to_have_value("half a")


async def test_a_key_opens_the_page_and_leaves_the_address(
    chromium: Browser, tmp_path: Path
) -> None:
    async with served(tmp_path, "--auth") as server:
        line = next(line for line in server.lines if "#key=" in line)
        address = re.search(r"http\S+#key=\S+", line)
        assert address is not None
        context = await chromium.new_context()
        page = await context.new_page()
        await page.goto(server.url)
        await expect(page.get_by_label("Key")).to_be_visible()
        await page.fill("#key", "wrong")
        await page.get_by_role("button", name="Open").click()
        await expect(page.locator(".problem")).to_contain_text("unknown")
        await page.goto("about:blank")
        await page.goto(address[0])
        await say(page, "hello")
        await expect(page.locator(".answer").last).to_contain_text("You said: hello")
        assert "key" not in page.url.partition("#")[2]
        assert await page.evaluate("document.cookie") == ""
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Key")).to_be_visible()
        await page.reload()
        await expect(page.get_by_label("Key")).to_be_visible()
        await context.close()


async def test_it_fits_a_phone(chromium: Browser, server: Served) -> None:
    phone = {"viewport": {"width": 390, "height": 780}, "color_scheme": "dark", "has_touch": True}
    async with opened(chromium, server, **phone) as page:
        await say(page, "rich")
        await expect(page.locator(".answer")).to_contain_text("The end.")
        width = "document.documentElement.scrollWidth"
        assert await page.evaluate(width) <= 390
        await page.get_by_role("button", name="Conversations").click()
        await page.get_by_role("link", name="New conversation").click()
        await expect(page.locator(".welcome")).to_be_visible()


@pytest.mark.needs("npm clients")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(chromium: Browser, server: Served, scheme: str) -> None:
    assert is_installed("npm clients")
    axe = await asyncio.to_thread((NPM / "node_modules/axe-core/axe.min.js").read_text)
    look = {"color_scheme": scheme, "bypass_csp": True, "reduced_motion": "reduce"}
    async with opened(chromium, server, **look) as page:

        async def violations() -> list[str]:
            await page.evaluate(axe)
            found = await page.evaluate("axe.run()")
            return [
                f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}"
                for one in found["violations"]
            ]

        await expect(page.locator(".welcome")).to_be_visible()
        assert await violations() == []
        await say(page, "think")
        await expect(page.locator(".answer").last).to_contain_text("Thought")
        await say(page, "rich")
        await expect(page.locator(".answer").last).to_contain_text("The end.")
        await say(page, "fail")
        await expect(page.locator(".answer").last).to_contain_text("The tool said")
        await say(page, "pay")
        await page.locator(".answer-form").get_by_role("button", name="Edit").click()
        await expect(page.locator(".edits")).to_be_visible()
        await page.request.post(
            f"{origin(page)}/api/v1/threads/{page.url.rpartition('/')[2]}/schedules",
            data={"message": "Later.", "after": 3600},
        )
        for tab in ("Runs", "Context", "Memory", "Schedules", "Jobs", "Events"):
            await page.get_by_role("tab", name=tab).click()
            assert await violations() == [], tab


async def test_a_long_thread_opens_at_once(page: Page, server: Served) -> None:
    history = [
        {"role": ("user", "assistant")[at % 2], "content": f"Message **{at}** of many words."}
        for at in range(2000)
    ]
    made = await page.request.post(f"{server.url}/api/v1/threads", data={"history": history})
    thread_id = (await made.json())["id"]
    await page.goto("about:blank")
    await page.goto(f"{server.url}/#/t/{thread_id}")
    await expect(page.locator(".line").last).to_contain_text("1999")
    assert await page.locator(".line").count() < 200
    seconds = await page.evaluate("performance.now() / 1000")  # since the page began to load
    assert seconds < 5  # 0.5 on an idle machine; the suite runs on a busy one
    lines = page.locator(".lines")
    for _ in range(30):
        await lines.evaluate("one => one.scrollTop = 0")
        await asyncio.sleep(0.02)
    await expect(page.locator(".line").first).to_contain_text("Message **0**")
