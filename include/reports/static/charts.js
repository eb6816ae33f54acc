// Draws the figures of a report with plotly.js, in the colours of the page's style sheet.
//
// A figure is the JSON beside its place on the page. Its table is open until the chart is drawn,
// and stays so where this script or the library does not run.
"use strict";

(() => {
  if (!window.Plotly) return;
  const options = { displayModeBar: false, responsive: true };

  // Colours are names of CSS variables, and differ between the light and the dark page.
  const looked_up = (style, value, key) => {
    if (Array.isArray(value)) return value.map((item) => looked_up(style, item, key));
    if (value && typeof value === "object") {
      const parts = Object.entries(value);
      return Object.fromEntries(parts.map(([name, item]) => [name, looked_up(style, item, name)]));
    }
    const named = /color$/.test(key) && typeof value === "string" && value.startsWith("--");
    return named ? style.getPropertyValue(value).trim() : value;
  };

  const figure_of = (chart) => JSON.parse(chart.querySelector("script").textContent);
  const drawn = new Set();
  const draw = (chart) => {
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = looked_up(style, figure_of(chart), "");
    window.Plotly.react(chart.querySelector(".plot"), data, layout, options);
    drawn.add(chart);
  };

  const charts = document.querySelectorAll("figure.chart");
  for (const chart of charts) {
    // Its place is kept, so that the page does not move as charts are drawn.
    chart.querySelector(".plot").style.minHeight = `${figure_of(chart).layout.height}px`;
    for (const table of chart.querySelectorAll("details")) table.open = false;
  }
  // A page of hundreds of charts draws those that come into view.
  const watch = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      try {
        draw(target);
      } catch (error) {
        // One that cannot be drawn has its table; the others are drawn all the same.
        for (const table of target.querySelectorAll("details")) table.open = true;
        console.error(error);
      }
    }
  }, { rootMargin: "800px 0px" });
  for (const chart of charts) watch.observe(chart);
  window.addEventListener("beforeprint", () => {
    for (const chart of charts) if (!drawn.has(chart)) draw(chart);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const chart of drawn) draw(chart);
  });
})();
