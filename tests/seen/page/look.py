"""What a browser shows of the status page: its text, errors of its script, requests to elsewhere, and overflow at 390 px."""
import shutil
import sys

browser = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    print("this Python has no playwright (pip install playwright)", file=sys.stderr)
    sys.exit(77)
if browser is None:
    print("there is no chromium (apt-get install chromium)", file=sys.stderr)
    sys.exit(77)

page_at = f"http://127.0.0.1:{sys.argv[1]}/"
with sync_playwright() as player:
    running = player.chromium.launch(executable_path=browser, args=["--no-sandbox"])
    page = running.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    errors, elsewhere = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: elsewhere.append(request.url) if not request.url.startswith(page_at) else None)
    page.goto(page_at)
    page.wait_for_selector(".node", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('#events li').length > 0", timeout=60_000)
    print(page.inner_text("body"))
    beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    if beyond > 0:
        errors.append(f"the page is {beyond} px wider than a phone")
    # Everything that can be done by the mouse can be by the keyboard.
    page.keyboard.press("p")
    if page.get_attribute("#pause", "aria-pressed") != "true":
        errors.append("p does not pause")
    print("errors:", errors + elsewhere)
    running.close()
