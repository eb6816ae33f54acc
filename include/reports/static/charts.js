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

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const chart of document.querySelectorAll("figure.chart")) {
      const figure = JSON.parse(chart.querySelector("script").textContent);
      const { data, layout } = looked_up(style, figure, "");
      window.Plotly.react(chart.querySelector(".plot"), data, layout, options);
    }
  };

  draw();
  for (const table of document.querySelectorAll("figure.chart details")) table.open = false;
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
