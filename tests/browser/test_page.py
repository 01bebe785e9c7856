"""The report in headless Chromium: its figures equal Python's, keyboard and mouse work, nothing is loaded or run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from justenough.evaluation import table_of
from justenough.evaluation.figures import outcomes
from justenough.gate import GateSettings
from justenough.report import write_report
from justenough.report.advice import advice
from justenough.report.budget import sorted_groups
from justenough.report.data import contents
from justenough.report.rulesheets import RULES
from justenough.report.templates import meaning
from justenough.report.thoughts import chosen_thoughts, stops_of
from justenough.report.words import change, percent_with_interval
from justenough.stats import non_inferiority, wilson
from justenough.stats.text import percent
from tests.reports import CASES, EVIL, Case, calibrated

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def case() -> Case:
    return calibrated()


@pytest.fixture(scope="session")
def file(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(case, tmp_path_factory.mktemp("page") / "report.html")


def saved(case: Case, path: Path) -> Path:
    write_report(case.evaluation, case.traces, path, calibration=case.calibration, command="justenough report x")
    return path


class Opened:
    """An open page with its console messages and its requests."""

    def __init__(self, browser: Browser, file: Path, *, width: int = 1280, dark: bool = False) -> None:
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("table.problems tbody tr")

    def figure(self, name: str) -> float | None:
        value = self.page.get_attribute(f"#now-{name}", "data-value")
        assert value is not None
        return None if value == "null" else float(value)

    def readout(self, name: str) -> float:
        value = self.page.get_attribute("#readout", f"data-{name}")
        assert value is not None
        return float(value)


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    page = Opened(browser, file)
    yield page
    page.page.close()


def settings_of(case: Case) -> GateSettings:
    return contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={}).settings


def assert_equals_python(opened: Opened, case: Case) -> None:
    """Compare each figure that the page shows for its threshold with the library's."""
    threshold = opened.figure("threshold")
    table = table_of(case.traces, case.evaluation.signal)
    done = outcomes(table, table.stops(replace(settings_of(case), threshold=threshold)))
    final, n = table.correct[:, -1], len(table)
    assert opened.figure("accuracy") == pytest.approx(done.correct.mean(), abs=1e-12)
    assert opened.figure("change") == pytest.approx(done.correct.mean() - final.mean(), abs=1e-12)
    assert opened.figure("saving") == pytest.approx(1 - done.tokens.sum() / table.spent[:, -1].sum(), abs=1e-12)
    assert opened.figure("harm") == pytest.approx(done.harm.mean(), abs=1e-12)
    assert opened.figure("rescue") == pytest.approx(done.rescue.mean(), abs=1e-12)
    assert opened.readout("tokens") == done.tokens.sum()
    assert opened.readout("stopped") == pytest.approx(done.early.mean(), abs=1e-12)
    limits = non_inferiority(done.correct > 0.5, final)
    assert opened.readout("change-low") == pytest.approx(limits.low, abs=1e-8)
    assert opened.readout("change-high") == pytest.approx(limits.high, abs=1e-8)
    harm = wilson(int(done.harm.sum()), n)
    assert harm is not None
    assert harm.high is not None
    beside = opened.page.inner_text("#readout .harm .limits")
    assert f"[{beside}]" in percent_with_interval(harm)


def test_starts_at_the_calibrated_gate(opened: Opened, case: Case) -> None:
    gated = case.evaluation.gated
    assert gated.saving is not None
    assert case.calibration is not None
    assert opened.figure("threshold") == case.calibration.threshold
    assert opened.figure("saving") == pytest.approx(gated.saving.value)
    assert opened.figure("accuracy") == pytest.approx(gated.accuracy)
    assert opened.readout("tokens") == gated.tokens
    assert_equals_python(opened, case)


def test_keyboard_moves_the_threshold(opened: Opened, case: Case) -> None:
    slider = opened.page.get_by_label("Threshold τ")
    slider.focus()
    seen = {opened.figure("threshold")}
    for key, times in (("ArrowRight", 7), ("PageUp", 2), ("ArrowLeft", 3), ("End", 1)):
        for _ in range(times):
            slider.press(key)
        assert_equals_python(opened, case)
        seen.add(opened.figure("threshold"))
    assert len(seen) == 5
    assert opened.readout("stopped") == 1
    slider.press("Home")
    assert opened.figure("threshold") is None
    assert (opened.figure("saving"), opened.readout("stopped")) == (0, 0)
    assert slider.get_attribute("aria-valuetext") == "never stops"
    assert_equals_python(opened, case)
    opened.page.locator("#spoken", has_text="never stops").wait_for(state="attached")


def test_dragging_in_the_chart_moves_the_threshold(opened: Opened, case: Case) -> None:
    opened.page.locator("#chart-threshold svg").scroll_into_view_if_needed()
    box = opened.page.locator("#chart-threshold svg").bounding_box()
    assert box is not None
    mouse, y = opened.page.mouse, box["y"] + box["height"] * 0.7
    mouse.move(box["x"] + box["width"] * 0.3, y)
    mouse.down()
    seen: list[tuple[float, float]] = []
    for share in (0.35, 0.5, 0.65, 0.8):
        mouse.move(box["x"] + box["width"] * share, y)
        threshold, saving = opened.figure("threshold"), opened.figure("saving")
        assert threshold is not None
        assert saving is not None
        seen.append((threshold, saving))
        assert_equals_python(opened, case)
        line = opened.page.locator("#chart-threshold .tau").bounding_box()
        assert line is not None
        assert line["x"] + line["width"] / 2 == pytest.approx(box["x"] + box["width"] * share, abs=1.5)
    assert seen == sorted(seen)
    assert seen[0][1] < seen[-1][1]
    mouse.up()
    mouse.move(box["x"] + 10, y)
    assert opened.figure("threshold") == seen[-1][0]


def test_each_methods_threshold_can_be_chosen(opened: Opened, case: Case) -> None:
    for name, threshold in case.evaluation.thresholds.items():
        chip = opened.page.locator(f"[data-method='{name}']")
        chip.focus()
        chip.press("Enter")
        assert opened.figure("threshold") == threshold
        assert chip.get_attribute("aria-pressed") == "true"
        assert_equals_python(opened, case)
    opened.page.locator("svg .flag-text", has_text="info").click()
    assert opened.figure("threshold") == case.evaluation.thresholds["info"]


@pytest.mark.parametrize(
    "name", ["every", "every, patience 2, minimum 4", "uncalibrated", "stand-in", "one step", "never stops"]
)
def test_other_gates_count_as_python_does(browser: Browser, tmp_path: Path, name: str) -> None:
    case = {
        "every": lambda: calibrated(50, decide="every", max_steps=3),
        "every, patience 2, minimum 4": lambda: calibrated(50, decide="every", patience=2, min_tokens=4),
    }.get(name, CASES.get(name, calibrated))()
    opened = Opened(browser, saved(case, tmp_path / "r.html"))
    slider = opened.page.get_by_label("Threshold τ")
    for value in (0, 1, 300, 620, 1000):
        slider.fill(str(value))
        assert_equals_python(opened, case)
    assert opened.messages == []
    opened.page.close()


def test_stops_at_the_very_threshold(browser: Browser, tmp_path: Path) -> None:
    case = calibrated(50)
    assert case.calibration is not None
    recorded = float(table_of(case.traces, case.evaluation.signal).bits[20, 0])
    opened = Opened(
        browser,
        saved(case._replace(calibration=replace(case.calibration, threshold=recorded)), tmp_path / "r.html"),
    )
    assert opened.figure("threshold") == recorded
    assert_equals_python(opened, case)
    opened.page.close()


def column(opened: Opened, number: int) -> list[str]:
    return opened.page.locator(f"table.problems tbody tr > :nth-child({number})").all_inner_texts()


def test_sorts_by_click_and_by_keyboard(opened: Opened) -> None:
    page = opened.page
    head = page.locator("table.problems thead th").nth(3)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [float(value) for value in column(opened, 4)]
    assert rising == sorted(rising)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    falling = [float(value) for value in column(opened, 4)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > rising[-1]
    outcome = page.locator("table.problems thead th").last
    outcome.get_by_role("button").press("Space")
    assert head.get_attribute("aria-sort") == "none"
    values = column(opened, 9)
    assert values == sorted(values)
    for number in range(page.locator("table.problems thead th").count()):
        page.locator("table.problems thead button").nth(number).click()
        assert page.locator("table.problems tbody tr").count() == 25


def test_filters(opened: Opened, case: Case) -> None:
    rows = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={})
    table = rows.table
    stops = table.stops(rows.settings)
    right = [bool(table.correct[row, stop]) for row, stop in enumerate(stops)]
    stopped = int((stops < table.steps - 1).sum())
    for name, count in (("right", sum(right)), ("wrong", len(right) - sum(right)), ("stopped", stopped)):
        choice = opened.page.locator(f"input[name=filter][value='{name}']")
        choice.check(force=True)
        assert opened.page.locator(".filters label", has=choice).inner_text() == f"{name} {count}"
        while opened.page.locator(".more").is_visible():
            opened.page.locator(".more").click()
        assert opened.page.locator("table.problems tbody tr").count() == count


def test_hostile_output_is_shown_as_text(opened: Opened, case: Case) -> None:
    row = opened.page.locator("table.problems .open").first
    row.press("Enter")
    assert row.get_attribute("aria-expanded") == "true"
    detail = opened.page.locator(".detail")
    shown = EVIL.replace("\x1b", "")
    assert shown in detail.inner_text().replace("\x1b", "")
    assert "<script>" in opened.page.locator(".detail .tokens").first.inner_text()
    assert opened.page.title() != "run"
    assert opened.page.locator("img, .detail b, .detail script").count() == 0
    assert detail.locator(".ran").count() + detail.locator(".spared").count() == 2
    assert detail.locator(".why").first.inner_text().endswith(("continue.", "stop here."))
    shades = [span.get_attribute("class") for span in detail.locator(".tokens").first.locator("span").all()]
    # 0.4 and 1.7 bits.
    assert shades == ["s3", "s6"]
    row.press("Enter")
    assert opened.page.locator(".detail").count() == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dark", [False, True])
def test_no_message_and_no_request(browser: Browser, tmp_path: Path, name: str, *, dark: bool) -> None:
    file = saved(CASES[name](), tmp_path / "report.html")
    opened = Opened(browser, file, dark=dark)
    opened.page.locator("table.problems .open").first.click()
    opened.page.mouse.wheel(0, 20_000)
    opened.page.wait_for_timeout(100)
    assert opened.messages == []
    assert opened.requests == [file.as_uri()]
    for chart in opened.page.locator(".chart svg").all():
        assert chart.get_attribute("aria-label")
        assert "NaN" not in str(chart.inner_html())
    opened.page.close()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_pages_do_not_scroll_sideways(browser: Browser, file: Path, width: int) -> None:
    opened = Opened(browser, file, width=width)
    opened.page.locator("table.problems .open").first.click()
    for summary in opened.page.locator("summary").all():
        summary.press("Enter")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    detail = opened.page.locator(".detail").bounding_box()
    assert detail is not None
    assert detail["x"] + detail["width"] <= width
    opened.page.close()


def test_no_table_is_cut_on_paper(browser: Browser, file: Path) -> None:
    a4 = 718  # Pixels of 210 mm without the browser's margins.
    opened = Opened(browser, file, width=a4)
    opened.page.emulate_media(media="print")
    for summary in opened.page.locator("summary").all():
        summary.press("Enter")
    wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert opened.page.locator(".scroll table").count() > 5
    assert opened.page.evaluate(wide) == 0
    picture = opened.page.locator("#chart-frontier svg").bounding_box()
    assert picture is not None
    for name in opened.page.locator("#chart-frontier .label").all():
        place = name.bounding_box()
        assert place is not None
        assert place["x"] >= picture["x"] - 1
        assert place["x"] + place["width"] <= picture["x"] + picture["width"] + 1
    opened.page.close()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_of_labels_are_drawn_and_tabled(opened: Opened, case: Case) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="justenough report x", demo={})
    chart = opened.page.locator("#chart-sizes svg")
    # Each of the three panels has one mark for each size, and the table has the same sizes.
    assert chart.locator("circle").count() == 3 * len(found.sizes)
    assert chart.get_attribute("role") == "img"
    assert "labels" in str(chart.get_attribute("aria-label"))
    rows = opened.page.locator("table.sizes tbody tr")
    assert rows.count() == len(found.sizes)
    assert percent(found.sizes[0].saving.mean) in str(rows.first.text_content())
    heights = chart.locator("circle").evaluate_all("all => all.map(e => Number(e.getAttribute('cy')))")
    middle = heights[len(found.sizes) : 2 * len(found.sizes)]
    savings = [row.saving.mean for row in found.sizes]
    assert sorted(range(len(middle)), key=middle.__getitem__) == sorted(range(len(middle)), key=lambda at: -savings[at])


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_readable(browser: Browser, file: Path, *, dark: bool) -> None:
    opened = Opened(browser, file, dark=dark)
    colour = "element => getComputedStyle(element)[{0!r}]"
    ground = luminance(opened.page.locator("body").evaluate(colour.format("backgroundColor")))
    assert (ground < 0.1) == dark
    for selector, kind in (
        ("h1", "color"), (".note", "color"), ("td.outcome.right", "color"), ("td.outcome.wrong", "color"),
        ("#now-threshold", "color"), ("svg .tick", "fill"), ("svg .right-text", "fill"), ("svg .wrong-text", "fill"),
    ):  # fmt: skip
        found = luminance(opened.page.locator(selector).first.evaluate(colour.format(kind)))
        contrast = (max(found, ground) + 0.05) / (min(found, ground) + 0.05)
        assert contrast >= 4.5, (selector, contrast)
    opened.page.close()


def test_can_be_used_without_a_mouse(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator("main, header, nav, footer").count() == 4
    assert page.locator("h1").count() == 1
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input')].filter("
        "e => !e.textContent.trim() && !e.labels?.length && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for target in page.locator("nav a").all():
        assert str(target.get_attribute("href"))[1:] in ids
    assert page.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')].every("
        "e => document.getElementById(e.getAttribute('aria-labelledby')))"
    )


def test_the_budget_is_chosen_by_keyboard_and_equals_python(opened: Opened, case: Case) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={}).budget
    assert found is not None
    slider = opened.page.get_by_label("Total:")
    slider.focus()
    slider.press("Home")
    for number, total in enumerate(found.sweep.totals):
        if number:
            slider.press("ArrowRight")
        assert opened.page.inner_text("#budget-total") == f"{total:,} tokens"
        for at, grouping in enumerate(found.groupings):
            if len(found.groupings) > 1:
                opened.page.locator(f"input[name=grouping][value='{at}']").check(force=True)
            for policy in ("uniform", "greedy"):
                row = found.sweep.at(policy, total)
                assert row is not None
                cells = opened.page.locator(f"#budget-shares td[data-policy='{policy}']").all()
                shown = [float(cell.get_attribute("data-steps") or "nan") for cell in cells]
                shares = row.groups[grouping]
                assert shown == [pytest.approx(shares[name].steps) for name in sorted_groups(list(shares))]
    spoken = opened.page.inner_text("#budget-spoken")
    last = found.sweep.at("oracle", found.sweep.totals[-1])
    assert last is not None
    assert f"oracle {100 * last.accuracy:.1f}\u00a0%" in spoken
    assert opened.messages == []


def test_bars_are_the_paired_intervals_and_miss_uniform_where_these_exclude_0(opened: Opened, case: Case) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={}).budget
    assert found is not None
    drawn = opened.page.evaluate(
        "[...document.querySelectorAll('#chart-budget .reach, #chart-budget .even')].map(e =>"
        " [e.dataset.policy || '', Number(e.dataset.total), ...['y1', 'y2'].map(end => Number(e.getAttribute(end)))])"
    )
    marks = {total: top for policy, total, top, _ in drawn if not policy}
    bars = {(policy, total): (top, bottom) for policy, total, top, bottom in drawn if policy}
    expected = {
        (row.policy, row.total): interval
        for row in found.sweep.rows
        for interval in [row.against_uniform.interval]
        if row.policy != "uniform" and interval is not None and interval[0] != interval[1]
    }
    assert bars.keys() == expected.keys()
    scales = []
    for (policy, total), (low, high) in expected.items():
        top, bottom = bars[policy, total]
        assert (top <= marks[total] <= bottom) == (low <= 0 <= high)
        scales.append((bottom - top) / (high - low))
    assert len(scales) > 10
    # All bars have the scale of the axis, except those that are cut at its ends.
    assert sorted(scales)[len(scales) // 2 :] == pytest.approx(
        [max(scales)] * (len(scales) - len(scales) // 2), rel=0.02
    )


def test_the_first_screen_answers_with_a_reason(opened: Opened, case: Case) -> None:
    found = advice(contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={}))
    heading = opened.page.locator("h1")
    assert heading.inner_text().replace("\u00a0", " ") == found.sentence
    assert heading.locator("strong").inner_text() == f"{found.answer}:"
    box = heading.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 450


def test_what_was_not_replayed_is_at_the_end(opened: Opened, case: Case) -> None:
    assert case.evaluation.missing
    headings = opened.page.locator("main h2").all_inner_texts()
    assert headings[-2] == "Rules that were not replayed"
    assert not any(name in opened.page.inner_text("header") for name in case.evaluation.missing)


@pytest.mark.parametrize("width", [320, 390, 700, 768, 1024, 1280])
def test_the_table_of_rules_fits_or_scrolls_visibly(browser: Browser, file: Path, case: Case, width: int) -> None:
    opened = Opened(browser, file, width=width)
    table = opened.page.locator("table.rules")
    table.scroll_into_view_if_needed()
    home = table.locator("xpath=..")
    wider = home.evaluate("box => box.scrollWidth - box.clientWidth")
    if width <= 720 or width >= 1024:
        assert wider == 0
    else:
        assert home.evaluate("box => getComputedStyle(box).overflowX") == "auto"
        assert "gradient" in home.evaluate("box => getComputedStyle(box).backgroundImage")
    row = table.locator("tbody tr").first
    assert percent(next(iter(case.evaluation.rules.values())).accuracy) in row.inner_text()
    label = row.locator("td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert (label == '"accuracy"') == (width <= 720)
    opened.page.close()


def test_column_heads_are_explained(opened: Opened) -> None:
    heads = opened.page.locator("table.rules thead th")
    assert heads.count() == len(RULES)
    for head in heads.all():
        assert head.locator("abbr").get_attribute("title") == meaning(head.inner_text())
    legend = opened.page.locator("summary", has_text="What the columns mean")
    legend.press("Enter")
    assert opened.page.locator("table.columns tbody tr").first.is_visible()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_labels_cover_no_curve(browser: Browser, file: Path, width: int) -> None:
    opened = Opened(browser, file, width=width)
    covered = opened.page.evaluate(
        """() => ["#chart-frontier", "#chart-sweep"].flatMap((id) => {
          const svg = document.querySelector(`${id} svg`).getBoundingClientRect();
          const labels = [...document.querySelectorAll(`${id} .label`)]
            .map((e) => [e.textContent, e.getBoundingClientRect()]);
          return [...document.querySelectorAll(`${id} path.sweep`)].flatMap((curve) => {
            const length = curve.getTotalLength();
            const points = Array.from({ length: 400 }, (_, at) => curve.getPointAtLength((length * at) / 399));
            return labels.filter(([, box]) => points.some(({ x, y }) =>
              svg.left + x > box.left + 1 && svg.left + x < box.right - 1 &&
              svg.top + y > box.top + 2 && svg.top + y < box.bottom - 2)
            ).map(([name]) => `${id}: ${name}`);
          });
        })"""
    )
    assert covered == []
    opened.page.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_a_stream_is_drawn_along_its_thought(browser: Browser, tmp_path: Path, width: int) -> None:
    case = CASES["streamed"]()
    opened = Opened(browser, saved(case, tmp_path / "r.html"), width=width)
    page, shown = opened.page, contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={})
    places = chosen_thoughts(shown)
    assert page.locator("#thoughts ~ figure svg").count() == len(places)
    for number, at in enumerate(places):
        picture = page.locator(f"#chart-thought-{number} svg")
        stops = stops_of(case.traces[at], shown)
        labels = picture.locator(".label").all_text_contents()
        assert [label.split(":")[0] for label in labels] == [stop.rule.split(":")[0] for stop in stops]
        assert picture.locator("circle.right").count() == sum(stop.right for stop in stops)
        assert picture.locator("rect").count() == len(case.traces[at].steps)
        around = picture.bounding_box()
        assert around is not None
        for label in picture.locator("text").all():
            box = label.bounding_box()
            assert box is not None
            assert around["x"] - 1 <= box["x"] <= box["x"] + box["width"] <= around["x"] + around["width"] + 1
    page.locator("table.problems .open").first.click()
    assert page.locator(".detail svg").count() == 1
    assert opened.messages == []
    page.close()


def test_a_sequential_run_has_no_thought_to_draw(opened: Opened) -> None:
    assert opened.page.locator("#thoughts").count() == 0


def test_one_quantity_has_one_interval(opened: Opened, case: Case) -> None:
    limits = change(case.evaluation.gated.accuracy_change).partition("[")[2].rstrip("]")
    assert opened.page.locator(".card.lead dl .limits").first.inner_text() == limits
    assert opened.page.locator("#readout .change .limits").inner_text() == limits
    row = opened.page.locator(
        "table.rules tr", has=opened.page.get_by_text(f"entropy-{case.evaluation.method}", exact=True)
    )
    assert f"[{limits}]" in row.inner_text()


def test_a_gate_without_a_threshold_saves_nothing_that_has_a_number(browser: Browser, tmp_path: Path) -> None:
    opened = Opened(browser, saved(CASES["never stops"](), tmp_path / "r.html"))
    assert opened.page.locator(".card.lead .value").inner_text() == "no threshold"
    assert opened.page.locator("h1 strong").inner_text() in ("No:", "Not yet:")
    opened.page.close()
