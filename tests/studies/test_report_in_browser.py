"""The report in a real browser: Chromium without a window, as a reader and as a keyboard use it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.momentum import report_momentum
from studies.report import Circumstances
from tests.studies.test_momentum import RUNS, write

pytest.importorskip("selenium", reason="selenium is not installed: it drives the browser")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="neither downloads nor bundles a browser: needs Debian's packages chromium and chromium-driver",
)
ACCURACIES = {"little-krum": 0.3, "little-trmean": 0.5, "empire-krum": 0.4, "empire-trmean": 0.93}
"""Of each cell with momentum at update, so that sorting by it gives this order: 0.3, 0.4, 0.5, 0.93."""
PHONE, DESK = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    for name, config in RUNS.items():
        if config.seed == 1:
            at_update = next((value for cell, value in ACCURACIES.items() if f"{cell}-at_update" in name), None)
            write(folder / "results", name, config, at_update)
    (folder / "plots").mkdir()
    circumstances = Circumstances(expected=[*RUNS], failed={"little-krum-at_update-2": "out of memory, " * 20})
    report_momentum(folder / "results", folder / "plots", title="A report", circumstances=circumstances)
    return (folder / "plots" / "index.html").as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, address: str) -> Iterator[webdriver.Chrome]:
    """The page at the width of a desk, freshly loaded; whatever is done to it, nothing may be complained of."""
    show(chromium, address, DESK)
    yield chromium
    assert chromium.get_log("browser") == []


def show(driver: webdriver.Chrome, address: str, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    calm = [{"name": "prefers-reduced-motion", "value": "reduce"}]  # else a click comes while the page still scrolls
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": calm})
    driver.get("about:blank")
    driver.get(address)
    WebDriverWait(driver, 30).until(lambda page: page.find_elements(By.ID, "cells-table"))


def rows(driver: webdriver.Chrome) -> list[list[str]]:
    """Return the texts of the rows that are seen of the table of cells."""
    script = """return [...document.querySelectorAll("#cells-table tbody tr")].filter((row) => row.checkVisibility())
        .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    return driver.execute_script(script)


def column(driver: webdriver.Chrome, title: str) -> list[str]:
    heads = [head.text for head in driver.find_elements(By.CSS_SELECTOR, "#cells-table th")]
    place = [head.split(" ↑")[0].split(" ↓")[0] for head in heads].index(title)
    return [row[place] for row in rows(driver)]


def head(driver: webdriver.Chrome, title: str) -> WebElement:
    return driver.find_element(By.XPATH, f"//table[@id='cells-table']//th/button[.='{title}']")


def dialog(driver: webdriver.Chrome) -> WebElement:
    return driver.find_element(By.TAG_NAME, "dialog")


def test_a_choice_and_a_word_filter_the_cells(page: webdriver.Chrome) -> None:
    assert len(rows(page)) == 4
    page.find_element(By.XPATH, "//label[contains(., 'rule')]/select/option[.='krum']").click()
    assert column(page, "rule") == ["krum", "krum"]
    count = page.find_element(By.CSS_SELECTOR, "output")
    assert count.text == "2 of 4"
    page.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("LITTLE")
    assert column(page, "attack") == ["little"]
    assert count.text == "1 of 4"
    page.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys(" nothing like this")
    assert rows(page) == []
    page.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    assert len(rows(page)) == 4
    assert count.text == "4 of 4"


def test_an_outcome_can_be_chosen(page: webdriver.Chrome) -> None:
    page.find_element(By.XPATH, "//label[contains(., 'outcome')]/select/option[.='no effect']").click()
    assert column(page, "at update") == ["0.930"]


def test_a_head_sorts_by_numbers_up_then_down(page: webdriver.Chrome) -> None:
    head(page, "at update").click()
    assert column(page, "at update") == ["0.300", "0.400", "0.500", "0.930"]
    head(page, "at update").click()
    assert column(page, "at update") == ["0.930", "0.500", "0.400", "0.300"]
    sort = [cell.get_attribute("aria-sort") for cell in page.find_elements(By.CSS_SELECTOR, "#cells-table th")]
    assert [value for value in sort if value] == ["descending"]
    head(page, "gain").send_keys(Keys.ENTER)
    assert column(page, "gain") == ["−0.080", "+0.350", "+0.450", "+0.550"]


def test_what_has_no_number_comes_last_both_ways(page: webdriver.Chrome) -> None:
    head(page, "ratio, update").click()
    assert column(page, "rule")[2:] == ["trmean", "trmean"]
    head(page, "ratio, update").click()
    assert column(page, "rule")[2:] == ["trmean", "trmean"]


def test_a_row_opens_its_figures_and_escape_closes_them(page: webdriver.Chrome) -> None:
    page.find_element(By.XPATH, "//table[@id='cells-table']//td[.='krum']").click()
    assert dialog(page).is_displayed()
    assert dialog(page).find_element(By.TAG_NAME, "h2").text == "digits · empire · krum · f = 4 of 11 · rate 0.01"
    widths = [int(image.get_property("naturalWidth")) for image in dialog(page).find_elements(By.TAG_NAME, "img")]
    assert len(widths) == 3
    assert min(widths) > 300
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog(page).is_displayed()


def test_a_keyboard_opens_and_leafs_through_the_rows_that_are_seen(page: webdriver.Chrome) -> None:
    page.find_element(By.XPATH, "//label[contains(., 'attack')]/select/option[.='little']").click()
    button = page.find_element(By.XPATH, "//table[@id='cells-table']//tr[not(@hidden)]//button[@class='open']")
    button.send_keys(Keys.ENTER)
    titles = []
    for _ in range(3):
        titles.append(dialog(page).find_element(By.TAG_NAME, "h2").text.split(" · ")[1:3])
        page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert titles == [["little", "krum"], ["little", "trmean"], ["little", "krum"]]
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert page.switch_to.active_element == button


def test_a_box_plot_opens_the_curves_of_all_rules(page: webdriver.Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, ".gallery button").click()
    assert dialog(page).find_element(By.TAG_NAME, "h2").text.endswith("all rules")
    assert len(dialog(page).find_elements(By.TAG_NAME, "img")) == 4
    dialog(page).find_element(By.ID, "close").click()
    assert not dialog(page).is_displayed()


def test_the_address_of_a_figure_opens_it(page: webdriver.Chrome, address: str) -> None:
    page.find_element(By.XPATH, "//table[@id='cells-table']//td[.='trmean']").click()
    with_figure = page.current_url
    assert with_figure.startswith(f"{address}#digits-empire-trmean")
    show(page, with_figure, DESK)
    assert dialog(page).is_displayed()
    show(page, f"{address}#cells", DESK)
    assert not dialog(page).is_displayed()


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(page: webdriver.Chrome, address: str, size: tuple[int, int]) -> None:
    show(page, address, size)
    for opened in (False, True):
        if opened:
            page.execute_script("document.querySelector('.open').click()")
            assert dialog(page).is_displayed()
            assert page.execute_script("return document.querySelector('dialog').scrollWidth") <= size[0]
        assert page.execute_script("return innerWidth") == size[0], "wider than that, and zoomed out"
        assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
    shown = page.execute_script("return document.querySelector('dialog img').getBoundingClientRect().width")
    assert shown > 300


def test_the_page_loads_nothing(page: webdriver.Chrome, address: str) -> None:
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    text = Path(address.removeprefix("file://")).read_text(encoding="utf-8")
    assert "default-src 'none'" in text
