"""Pictures of the page at /traits, taken from a running server with headless Chromium.

    traitroute serve --engine transformers --registry traitroute.db
    python benchmarks/page_screenshots.py http://localhost:8000

A few requests are sent to `auto` first, so that there are decisions to show. Those in docs/page.md are of `make demo`'s
registry. With `--only lift --only canaries` nothing is sent: those two are of a simulated month (docs/lift.md), which a
gateway without upstreams shows.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

ASKED = "Is this review positive or negative?\nThe soup was cold, the waiter rude, and we shall not come back."
SENT = (
    "Is this review positive or negative?\nI loved every minute of it.",
    "Rate the remark as positive, neutral or negative.\nThe parcel came on Tuesday.",
    "Is this comment toxic or not toxic?\nDear genius, nobody asked for your opinion.",
    "Do the two sentences mean the same? Answer yes or no.\nSentence 1: It rains.\nSentence 2: It is raining.",
    "What is the capital of France?",
    "Write two sentences about the sea.",
)
SECTIONS = ("ask", "matrix", "space", "loadings", "lift", "canaries", "decisions")
WIDE, NARROW = 1280, 390
HEIGHT = 900
MARGIN = 20
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")


def main(
    url: Annotated[str, typer.Argument(help="Where the server answers.")],
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/img"),
    chromium: Annotated[str | None, typer.Option(help="The browser's program.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Sections to take, without asking anything.")] = None,
) -> None:
    """Take a picture of every section in light and dark, and of the whole page as a phone shows it."""
    out.mkdir(parents=True, exist_ok=True)
    for text in () if only else SENT:
        _send(url, text)
    program = chromium or shutil.which("chromium")
    for scheme in ("light", "dark"):
        with _page(url, program, scheme, WIDE, asking=not only) as page:
            for section in only or SECTIONS:
                picture = out / f"page-{section}-{scheme}.png"
                page.screenshot(path=picture, full_page=True, clip=_around(page, section))
                typer.echo(picture)
    if only:
        return
    with _page(url, program, "dark", NARROW) as page:
        page.screenshot(path=out / "page-narrow-dark.png", full_page=True)
        typer.echo(out / "page-narrow-dark.png")


def _around(page: Any, section: str) -> Any:
    """The section's box, with a margin beside it and without the line above it."""
    box = page.locator(f"section[aria-labelledby={section}]").bounding_box()
    top = box["y"] + page.evaluate("scrollY")
    return {
        "x": box["x"] - MARGIN,
        "y": top + 2,
        "width": box["width"] + 2 * MARGIN,
        "height": box["height"] + MARGIN,
    }


def _send(url: str, text: str) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).raise_for_status()


@contextmanager
def _page(url: str, program: str | None, scheme: Any, width: int, *, asking: bool = True) -> Iterator[Any]:
    """The page, with a request decided and answered where `asking`; what the browser complains of is an error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS])
        page = browser.new_page(
            color_scheme=scheme,
            viewport={"width": width, "height": HEIGHT},
            reduced_motion="reduce",
        )
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url}/traits")
        page.locator("#loadings-plot .main-svg").first.wait_for(timeout=120_000)
        if asking:
            page.get_by_role("textbox", name="Request").fill(ASKED)
            page.get_by_role("button", name="Choose").click()
            page.get_by_role("button", name="Run both").click()
            page.get_by_text("Both have answered.").wait_for(timeout=120_000)
        else:
            page.locator("#lift-plot .main-svg").first.wait_for(timeout=120_000)
            page.locator("#canaries-plot .main-svg").first.wait_for(timeout=120_000)
            page.locator("#canaries-past summary").click()
        yield page
        browser.close()
        if complaints:
            raise RuntimeError("; ".join(complaints))


if __name__ == "__main__":
    typer.run(main)
