"""A browser for the tests in this folder, and the pages that they look at.

Skipped, with the reason, where there is no chromium with its driver or no selenium. axe-core is looked for in
`tests/browser/node_modules`, where `npm install --prefix tests/browser axe-core` puts it, and where
GOSSAMER_AXE points.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from gossamer.circuits.circuit import Circuit
from gossamer.circuits.trace import trace
from gossamer.models.attach import attach
from gossamer.recipes.addition.page import trace_all, view_addition
from gossamer.recipes.addition.task import Addition

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """A headless chromium and what the tests ask of it."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, page: Path | str) -> Browser:
        """Open a file or an address, and forget what earlier pages said."""
        self.driver.get_log("browser"), self.driver.get_log("performance")
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)
        self.wait("return document.getElementById('panels')?.dataset.shown")
        return self

    def size(self, width: int, height: int = 900) -> None:
        """Give the window a size in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.wait(f"return innerWidth === {width} && innerHeight === {height}")
        self.settle()

    def settle(self) -> None:
        """Two frames: what a scroll or a resize asks for is painted in the next one."""
        self.run("return new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 10.0) -> Any:
        """Wait until a script returns something true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.02).until(lambda driver: driver.execute_script(script))

    def find(self, selector: str) -> Any:
        """The first element that a CSS selector finds."""
        return self.driver.find_element("css selector", selector)

    def panel(self, name: str) -> dict[str, str]:
        """What a panel says of itself: open, edges, lines, drawn, answers, mode."""
        return self.run("return {...document.getElementById('panel-' + arguments[0]).dataset}", name)

    def saved(self) -> str:
        """The SVG file that the page's button hands over, as text."""
        for old in self.downloads.glob("*.svg"):
            old.unlink()
        self.find("#export").click()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            text = next((path.read_text("utf-8") for path in self.downloads.glob("*.svg")), "")
            if text.endswith("</svg>\n"):
                return text
            time.sleep(0.03)
        raise AssertionError("no SVG file came within ten seconds")

    def press(self, *keys: str) -> None:
        """Press keys, one after another, wherever the focus is; return when what they moved is painted."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()
        self.settle()

    def rows(self) -> list[Any]:
        """Open the list of lines and return its buttons; the page fills it after the click, in an event of its own."""
        self.find("#list summary").click()
        self.wait("return !!document.querySelector('#rows button')")
        return self.driver.find_elements("css selector", "#rows button")

    def slide(self, name: str, value: float) -> None:
        """Move a slider."""
        script = "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        self.run(script + "s.dispatchEvent(new Event('input'))", name, value)

    def faults(self, axe: str) -> list[Any]:
        """What axe-core calls serious or critical."""
        script = (
            "return axe.run(document).then(r => r.violations.map("
            "v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))]))"
        )
        self.driver.execute_script(axe)
        return [fault for fault in self.driver.execute_script(script) if fault[0] in ("serious", "critical")]

    def complaints(self) -> list[str]:
        """Errors and warnings on the console since `open`."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since `open`, but for data and blobs of the page and the browser's own first tab."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "chrome://"))]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    server = shutil.which("chromedriver")
    if chromium is None or server is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(server))
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    places = [
        os.environ.get("GOSSAMER_AXE", ""),
        str(Path(__file__).parent / "node_modules/axe-core/axe.min.js"),
    ]
    found = [Path(place) for place in places if place and Path(place).is_file()]
    if not found:
        pytest.skip("no axe-core: npm install --prefix tests/browser axe-core")
    return found[0].read_text(encoding="utf-8")


class Adders:
    """A base and a sparse model of the addition task, untrained, their logits spread, and their page."""

    def __init__(self, folder: Path) -> None:
        self.task = Addition()
        torch.manual_seed(0)
        self.base, self.sparse = (BertForMaskedLM(self.task.model_config()).eval() for _ in range(2))
        with torch.no_grad():
            for model in (self.base, self.sparse):
                for name, weight in model.named_parameters():
                    if name.endswith(("query.weight", "key.weight")):
                        weight.mul_(2)
                    elif name.endswith("value.weight"):
                        weight.mul_(5)
        gates = attach(self.sparse, check=False)
        inputs, _ = self.task.encode(torch.arange(0, 10_000, 101))
        gates.bias = -float(np.quantile(trace(self.sparse, inputs).logit, 0.99))  # about 19 edges stay open
        self.circuit: Circuit = trace_all(self.task, self.sparse)
        assert 5 < self.circuit.mean_edges < 30
        self.page = folder / "addition.html"
        self.html = view_addition(self.base, self.sparse, circuit=self.circuit)
        self.page.write_text(self.html, encoding="utf-8")


@pytest.fixture(scope="session")
def adders(tmp_path_factory: pytest.TempPathFactory) -> Adders:
    return Adders(tmp_path_factory.mktemp("pages"))
