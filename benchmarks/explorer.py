"""How long the explorer takes from a move of the mouse to the changed picture.

python benchmarks/explorer.py RUN              # a trained run; about a minute

A headless chromium drags the point in a circle: moves with pauses between them, then one every
16 ms, of which the page shows the latest. The time goes from the move's own time stamp to the frame
after the new picture. Needs Debian's chromium and chromium-driver, and the extra `test`.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import speed
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,800",
)  # fmt: skip
MOVES = {"60 moves, 150 ms apart": (60, 0.15), "200 moves, 16 ms apart": (200, 0.016)}
READY = "return window.Bokeh?.documents[0]?.get_model_by_name('picture') != null"
WATCH = """
window.moved = window.took = null
window.found = []
document.addEventListener("pointermove", (event) => { window.moved = event.timeStamp }, true)
const picture = Bokeh.documents[0].get_model_by_name("picture")
picture.properties.data.change.connect(() => {
  const since = window.moved
  const shown = () => window.found.push(performance.now() - since)
  requestAnimationFrame(() => setTimeout(shown))
})
"""


def dragged(browser: webdriver.Chrome, moves: int, pause: float) -> list[float]:
    """Milliseconds of each answer to a drag over the plane, which lies around (300, 300)."""

    def mouse(kind: str, x: float, y: float) -> None:
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    browser.execute_script("window.found = []")
    mouse("mousePressed", 300, 300)
    for i in range(moves):
        mouse("mouseMoved", 300 + 100 * math.cos(i / 8), 300 + 100 * math.sin(i / 8))
        time.sleep(pause)
    mouse("mouseReleased", 300, 300)
    time.sleep(0.5)
    return browser.execute_script("return window.found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    run = parser.parse_args().run
    command = [sys.executable, "-m", "tfp_vae", "explore", run, "--port", "0", "--no-browser"]
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as explorer,
    ):
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        browser = None
        try:
            url = json.loads(explorer.stdout.readline())["url"]
            browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
            browser.get(url)
            while not browser.execute_script(READY):
                time.sleep(0.1)
            time.sleep(5)  # the manifold, the first image's figures
            browser.execute_script(WATCH)
            rows = [("drag", "pictures", "median, ms", "95%, ms")]
            for name, (moves, pause) in MOVES.items():
                found = dragged(browser, moves, pause)
                middle, high = np.percentile(found, [50, 95])
                rows.append((name, str(len(found)), f"{middle:.0f}", f"{high:.0f}"))
        finally:
            if browser is not None:
                browser.quit()
            explorer.terminate()
    speed.table(f"From a move of the mouse to the changed picture, {run}", rows)


if __name__ == "__main__":
    main()
