"""All charts in a real browser: nothing collides or runs off, on phones and on wide screens."""

from __future__ import annotations

import pytest
from chart_examples import examples
from lab_browser import browser_page, need_chromium

from fxlab import _html
from fxlab.backtester.report._tearsheet import embed, plotly_source

pytestmark = pytest.mark.browser

TITLE = "sma_cross(fast=50, slow=200, allow_short=False, size=1.5) on exec_20240808_235413_657c2dd6"
COLLISIONS = """
() => {
  const found = [];
  for (const figure of document.querySelectorAll('.js-plotly-plot')) {
    const words = [];
    for (const one of figure.querySelectorAll('text')) {
      if (one.closest('.hoverlayer, .heatmaplayer, .modebar') || !one.textContent.trim()) continue;
      if (getComputedStyle(one).display === 'none' || one.style.opacity === '0') continue;
      const lines = one.querySelectorAll('tspan.line');
      for (const line of lines.length ? lines : [one]) {
        const box = line.getBoundingClientRect();
        if (box.width && box.height) words.push([line.textContent, box]);
      }
    }
    const frame = figure.getBoundingClientRect();
    words.forEach(([text, a], n) => {
      if (a.left < frame.left - 2 || a.right > frame.right + 2 || a.top < frame.top - 2 ||
          a.bottom > frame.bottom + 2)
        found.push(`${figure.id}: "${text}" runs off`);
      for (const [other, b] of words.slice(n + 1)) {
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (x > 1 && y > 4) found.push(`${figure.id}: "${text}" on "${other}"`);
      }
    });
  }
  return found;
}
"""


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_no_label_collides_or_runs_off(width, tmp_path, shots):
    need_chromium()
    sections = [(name, [embed(one, name, "")]) for name, one in examples(title=TITLE).items()]
    page = _html.page("page", title="All charts", sections=sections, plotly=plotly_source())
    path = tmp_path / "charts.html"
    path.write_text(page, encoding="utf-8")
    with browser_page(height=900) as opened:
        opened.context.set_offline(True)
        opened.set_viewport_size({"width": width, "height": 900})
        opened.goto(path.as_uri())
        assert opened.locator(".js-plotly-plot .main-svg:first-child").count() == len(sections)
        assert opened.locator(".no-webgl").count() == 0  # the policy of the page lets it compile
        opened.screenshot(path=shots / f"charts-{width}.png", full_page=True)
        found = opened.evaluate(COLLISIONS)
        assert found == [], "\n".join(found)
        assert opened.evaluate("document.documentElement.scrollWidth") == width
