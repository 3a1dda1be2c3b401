"""What a browser shows of the status page: its text, errors of its script, requests to elsewhere, what does not fit a phone, and
what axe-core holds against it by WCAG A and AA, in both themes and at three widths."""
import shutil
import sys

browser = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
try:
    from playwright.sync_api import sync_playwright
    from axe_playwright_python.sync_playwright import Axe
except ImportError:
    print("this Python has no playwright with axe (pip install playwright axe-playwright-python)", file=sys.stderr)
    sys.exit(77)
if browser is None:
    print("there is no chromium (apt-get install chromium)", file=sys.stderr)
    sys.exit(77)

page_at = f"http://127.0.0.1:{sys.argv[1]}/"
errors = []


def open_page(running, width, theme):
    page = running.new_page(viewport={"width": width, "height": 844}, color_scheme=theme)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: errors.append(request.url) if not request.url.startswith(page_at) else None)
    page.goto(page_at)
    page.wait_for_selector(".node", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('#events li').length > 0", timeout=60_000)
    # Everything that can be done by the mouse can be by the keyboard.
    page.keyboard.press("p")
    if page.get_attribute("#pause", "aria-pressed") != "true":
        errors.append("p does not pause")
    return page


def looks_right(page, at):
    beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    if beyond > 0:
        errors.append(f"{at}: the page is {beyond} px too wide")
    rows = page.evaluate("""() => {
        const tops = [...document.querySelectorAll('.figure')].map(tile => Math.round(tile.getBoundingClientRect().top));
        return [...new Set(tops)].map(top => tops.filter(other => other === top).length);
    }""")
    if len(set(rows)) > 1:
        errors.append(f"{at}: the rows of figures have {rows} tiles")
    cut = page.evaluate("""() => [...document.querySelectorAll('.figure, .trio > div, .badge')]
        .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent)""")
    errors.extend(f"{at}: does not fit: {text}" for text in cut)
    rules = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    for found in Axe().run(page, options={"runOnly": rules}).response["violations"]:
        errors.extend(f"{at}: {found['id']}: {node['html'][:120]}: {node['failureSummary']}" for node in found["nodes"])


with sync_playwright() as player:
    running = player.chromium.launch(executable_path=browser, args=["--no-sandbox"])
    every = [(1280, "light"), (1280, "dark"), (820, "light"), (390, "light"), (390, "dark")]
    # One look is enough for who asks after the text only.
    for width, theme in every if "everywhere" in sys.argv else every[-1:]:
        page = open_page(running, width, theme)
        looks_right(page, f"{width} px, {theme}")
        text = page.inner_text("body")
        page.close()
    print(text)
    print("errors:", errors)
    running.close()
