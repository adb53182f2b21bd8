"use strict";
// The two curves of a page, kept up to date by its event stream; and a word where that is lost. All else is htmx.
(() => {
  const live = document.getElementById("live");
  if (!live) return;
  const connection = document.getElementById("connection");
  const MOST = 2880;
  let data = null;
  let plots = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

  // Of the reader's own time zone; with seconds only where marks are closer than a minute.
  function clock(step) {
    const format = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", ...(step < 60 && { second: "2-digit" }), hourCycle: "h23" });
    return (time) => format.format(time * 1000);
  }

  function draw() {
    for (const plot of plots) plot.destroy();
    plots = [];
    for (const place of live.querySelectorAll("[data-curve]")) {
      const column = place.dataset.curve === "rows" ? 1 : 2;
      const label = place.querySelector("svg")?.getAttribute("aria-label") ?? place.getAttribute("aria-label");
      place.replaceChildren();
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", label);
      const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      plots.push(new uPlot({
        width: place.clientWidth, height: 144, legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { size: 6 } },
        scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        axes: [{ ...axis, size: 24, space: 64, values: (_plot, times, _axis, _space, step) => times.map(clock(step)) }, { ...axis, size: 48, values: (_plot, values) => values.map((value) => number.format(value)) }],
        series: [{}, { stroke: colour("--ink"), fill: colour("--soft"), width: 1.5, points: { show: false } }],
      }, [data[0], data[column]], place));
    }
  }

  function add(newer) {
    if (!data) return begin();
    const last = data[0].length ? data[0][data[0].length - 1] : 0;
    newer[0].forEach((time, index) => {
      if (time > last) data.forEach((column, each) => column.push(newer[each][index]));
    });
    for (const column of data) column.splice(0, column.length - MOST);
    if (!plots.length || !plots[0].root.isConnected) return draw();
    plots.forEach((plot, index) => plot.setData([data[0], data[index + 1]]));
  }

  async function begin() {
    const answer = await fetch(live.dataset.throughput);
    if (!answer.ok) return;
    data = await answer.json();
    if (data[0].length) draw();
  }

  function connected(is) {
    connection.textContent = is ? "" : "Not connected: trying again.";
  }

  live.addEventListener("samples", (event) => add(JSON.parse(event.detail.data)));
  live.addEventListener("htmx:sse:after:connection", () => connected(true));
  live.addEventListener("htmx:sse:error", () => connected(false));
  live.addEventListener("htmx:error", () => connected(false));
  new ResizeObserver(() => plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth, height: 144 }))).observe(live);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && draw());
  begin();
})();
