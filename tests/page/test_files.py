"""The files of the page: complete, unchanged where they are of others, and safe to serve."""

import gzip
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from tests.server.serving import serving

from treadle import Runtime
from treadle.journal.memory import MemoryJournal

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

PAGE = Path(str(files("treadle.server") / "page"))
OWN = sorted(path for path in PAGE.glob("*.js"))
IMPORT = re.compile(r'^(?:import|export)[^;"]*?from "([^"]+)"|^import "([^"]+)"', re.MULTILINE)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_vendored_files_are_those_of_their_packages() -> None:
    manifest = json.loads((PAGE / "vendor" / "manifest.json").read_text())
    for entry in manifest:
        content = (PAGE / "vendor" / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]
        assert entry["version"]
        assert entry["licence"]
    named = {entry["file"] for entry in manifest}
    assert named == {path.name for path in (PAGE / "vendor").glob("*.js")}
    assert {path.stem for path in (PAGE / "vendor" / "licences").iterdir()} == {
        "dompurify",
        "htm",
        "lucide",
        "markdown-it",
        "preact",
    }


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_modules_import_files_that_exist(path: Path) -> None:
    for own, bare in IMPORT.findall(path.read_text()):
        name = own or bare
        target = PAGE / "client.js" if name == "/client.js" else path.parent / name
        assert target.is_file(), f"{path.name} imports {name}"


def test_the_page_contains_nothing_that_its_policy_forbids() -> None:
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page)
    for path in OWN:
        assert not re.search(r"\bstyle=|\beval\(|new Function", path.read_text()), path.name
    assert not re.search(r"https?://(?!www\.w3\.org)", page + (PAGE / "page.css").read_text())


def test_the_page_is_small() -> None:
    served = [*PAGE.glob("*.html"), *PAGE.glob("*.css"), *PAGE.rglob("*.js")]
    assert sum(len(gzip.compress(path.read_bytes())) for path in served) < 200_000


async def test_files_are_served_with_their_policy_and_an_entity_tag() -> None:
    async with serving(Runtime(MemoryJournal())) as client:
        page = await client.http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        for path in ("/page/app.js", "/page/page.css", "/page/vendor/purify.js", "/client.js"):
            file = await client.http.get(path)
            assert file.status_code == 200
            assert file.headers["content-encoding"] == "gzip"
            assert file.headers["x-content-type-options"] == "nosniff"
            tag = {"if-none-match": file.headers["etag"]}
            assert (await client.http.get(path, headers=tag)).status_code == 304
            plain = await client.http.get(path, headers={"accept-encoding": "identity"})
            assert plain.content == file.content
        assert (await client.http.head("/")).content == b""
        assert (await client.http.post("/")).status_code == 405
        for path in ("/page/", "/page/../app.py", "/page/package.json", "/page/%2e%2e/app.py"):
            assert (await client.http.get(path)).status_code == 404, path
