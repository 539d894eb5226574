// Draws every `[data-plot]`: its samples are fetched, drawn in the colours of the page, and kept fresh while
// somebody looks. The element says what it shows; no page needs a script of its own.
(function () {
  "use strict";
  var FRESH_MS = 5000;
  var COLOURS = ["--running", "--completed", "--interrupted", "--failed", "--cancelled", "--accent"];

  function colour(name) {
    // A canvas knows no light-dark(): the browser resolves it on an element first.
    var probe = document.createElement("span");
    probe.style.color = "var(" + name + ")";
    document.body.append(probe);
    var found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }
  function size(bytes) {
    var units = ["B", "kB", "MB", "GB", "TB"];
    var at = 0;
    while (Math.abs(bytes) >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
    return (at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[at];
  }
  var WRITTEN = {
    bytes: size,
    percent: function (value) { return (value && value < 10 ? value.toFixed(1) : Math.round(value)) + " %"; },
    count: function (value) { return Number.isInteger(value) ? String(value) : value.toFixed(1); },
  };
  // Moments as every page writes them: uPlot's own are those of one country.
  var MOMENTS = [
    [31536000, "{YYYY}", null, null, null, null, null, null, 1],
    [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
    [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
    [1, ":{ss}", "\n{YYYY}-{MM}-{DD} {HH}:{mm}", null, "\n{MM}-{DD} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
  ];
  function writer(unit) {
    return function (value) { return value === null || value === undefined ? "–" : WRITTEN[unit || "count"](value); };
  }

  // Where nothing was measured nothing is drawn: a line across a gap would be made up.
  function broken(columns, step) {
    if (!step) { return columns; }
    var found = columns.map(function () { return []; });
    columns[0].forEach(function (at, index) {
      var before = columns[0][index - 1];
      if (index && at - before > 4 * Math.max(step, 5)) {
        found.forEach(function (each, column) { each.push(column ? null : (at + before) / 2); });
      }
      found.forEach(function (each, column) { each.push(columns[column][index]); });
    });
    return found;
  }

  function Plot(element) {
    this.element = element;
    this.series = JSON.parse(element.dataset.series);
    this.drawn = null;
    this.data = null;
  }
  // What was asked for is shown whole, so that a few samples stand where they belong and gaps are seen.
  Plot.prototype.within = function (first, last) {
    var span = Number(this.element.dataset.span);
    if (span) { return [window.toft.now() / 1000 - span, window.toft.now() / 1000]; }
    // Of one sample uPlot would show years.
    if (this.data[0].length === 1) { last = first; }
    return last - first < 10 ? [first - 5, last + 5] : [first, last];
  };
  Plot.prototype.options = function () {
    var self = this;
    var unit = this.series[0].unit;
    var soft = colour("--soft");
    var grid = { stroke: colour("--edge"), width: 1 };
    var font = "12px system-ui, sans-serif";
    return {
      width: Math.max(this.element.clientWidth, 200),
      height: 200,
      cursor: { y: false },
      hooks: { setCursor: [function (plot) { requestAnimationFrame(function () { self.latest(plot); }); }] },
      scales: {
        x: { range: function (plot, first, last) { return self.within(first, last); } },
        y: { range: function (plot, least, most) { return [0, (most || 1) * 1.05]; } },
      },
      axes: [
        { stroke: soft, grid: grid, ticks: grid, font: font, values: MOMENTS },
        {
          stroke: soft, grid: grid, ticks: grid, font: font, size: 64,
          incrs: unit === "count" ? [1, 2, 5, 10, 20, 50, 100, 1000, 10000, 100000, 1000000] : undefined,
          values: function (plot, values) { return values.map(writer(unit)); },
        },
      ],
      series: [{ label: "at", value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" }].concat(this.series.map(function (each, index) {
        return {
          label: each.label, stroke: colour(COLOURS[index % COLOURS.length]), width: 1.6, spanGaps: false,
          points: { show: self.data[0].length < 20, size: 5, fill: colour(COLOURS[index % COLOURS.length]) },
          value: function (plot, value) { return writer(each.unit)(value); },
        };
      })),
    };
  };
  Plot.prototype.draw = function () {
    if (!this.data) { return; }
    if (this.drawn) { this.drawn.destroy(); this.drawn = null; }
    this.element.replaceChildren();
    if (!this.data[0].length) {
      var empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = this.element.dataset.empty || "Nothing was measured in this time.";
      this.element.append(empty);
      return;
    }
    this.drawn = new uPlot(this.options(), this.data, this.element);
  };
  // Where nobody points, and on a phone nobody does, the legend tells the newest sample.
  Plot.prototype.latest = function (plot) {
    if (plot === this.drawn && plot.cursor.left < 0) { plot.setLegend({ idx: this.data[0].length - 1 }); }
  };
  Plot.prototype.take = function (told) {
    var at = told.at;
    this.data = broken([at].concat(this.series.map(function (each) {
      return told.series[each.name] || at.map(function () { return null; });
    })), told.step_s);
    // Few samples are drawn as points, many as a line.
    if (this.drawn && at.length > 20) { this.drawn.setData(this.data); } else { this.draw(); }
  };

  var plots = [];
  function find() {
    plots = plots.filter(function (each) { return each.element.isConnected; });
    document.querySelectorAll("[data-plot]").forEach(function (element) {
      if (!plots.some(function (each) { return each.element === element; })) { plots.push(new Plot(element)); }
    });
  }
  // `data-span` is how many seconds before now are asked for.
  function address(element) {
    var url = new URL(element.dataset.plot, window.location.href);
    var span = Number(element.dataset.span);
    if (span) { url.searchParams.set("from", String(Math.floor(window.toft.now() / 1000 - span))); }
    return url.pathname + url.search;
  }
  async function refresh() {
    find();
    var asked = {};
    await Promise.all(plots.map(async function (plot) {
      var path = address(plot.element);
      asked[path] = asked[path] || window.toft.ask("GET", path);
      try {
        var answer = await asked[path];
        if (answer.ok) { plot.take(answer.told); } else { fail(plot, answer); }
      } catch (error) {
        /* the page says that the node does not answer; what is drawn stays */
      }
    }));
    document.documentElement.dataset.plotted = "yes";
  }
  function fail(plot, answer) {
    if (plot.drawn) { return; }
    plot.element.textContent = window.toft.complaint(answer.text, answer.status);
  }
  function redraw() { plots.forEach(function (each) { each.draw(); }); }

  var resizing = null;
  window.addEventListener("resize", function () { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
  document.addEventListener("toft:theme", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("visibilitychange", function () { if (!document.hidden) { refresh(); } });
  setInterval(function () { if (!document.hidden) { refresh(); } }, FRESH_MS);
  refresh();
})();
