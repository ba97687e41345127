// Draws usage, and keeps the page up to date while somebody looks at it. All numbers and words come from the gateway.
"use strict";

(() => {
  const EVERY_MS = 5000, LONGEST_MS = 60000, PATIENCE_MS = 10000;
  const HEIGHT = 260, TILE = 8, FONT = "12px system-ui, sans-serif";
  const DASHES = [[], [8, 4], [2, 3]];
  const page = document.getElementById("usage");
  // Days are UTC's: drawn by another clock they would begin in the middle of one.
  const zone = page.dataset.period === "month" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;
  const kinds = [...page.querySelectorAll("[data-group]")];
  const lines = [...page.querySelectorAll("[data-line]")];
  const shown = new Map(); // the rows of each table, as they were when they were last written
  let charts = [], latest = null;

  // What is drawn: by colour and pattern, so that no one has to tell kinds apart by colour alone.

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clock = (options) => {
    const format = new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options });
    return (seconds) => format.format(new Date(seconds * 1000));
  };
  const tick = clock({ hour: { hour: "2-digit", minute: "2-digit" }, day: { hour: "2-digit", minute: "2-digit" } }[page.dataset.period]
    ?? { day: "numeric", month: "short" });
  const moment = clock(page.dataset.period === "month" ? { dateStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });

  function patternOf(number, ratio) {
    const tile = document.createElement("canvas"), size = TILE * ratio;
    tile.width = tile.height = size;
    const context = tile.getContext("2d");
    context.fillStyle = style(number ? "--card" : "--group-0");
    context.fillRect(0, 0, size, size);
    context.strokeStyle = context.fillStyle = style(`--group-${number}`);
    context.lineWidth = 2 * ratio;
    const stroke = (...points) => {
      context.beginPath();
      for (let at = 0; at < points.length; at += 4) {
        context.moveTo(points[at] * size, points[at + 1] * size);
        context.lineTo(points[at + 2] * size, points[at + 3] * size);
      }
      context.stroke();
    };
    const rising = [-0.5, 0.5, 0.5, -0.5, 0, 1, 1, 0, 0.5, 1.5, 1.5, 0.5];
    const falling = [-0.5, 0.5, 0.5, 1.5, 0, 0, 1, 1, 0.5, -0.5, 1.5, 0.5];
    [
      () => {},
      () => stroke(...rising),
      () => stroke(...falling),
      () => { context.beginPath(); context.arc(size / 2, size / 2, size / 4, 0, 7); context.fill(); },
      () => stroke(0, 0.5, 1, 0.5),
      () => stroke(0.5, 0, 0.5, 1),
      () => stroke(0, 0.5, 1, 0.5, 0.5, 0, 0.5, 1),
    ][number]();
    return context.createPattern(tile, "repeat");
  }

  function drawLegends() {
    kinds.forEach((item, number) => {
      const context = item.querySelector("canvas").getContext("2d");
      context.fillStyle = patternOf(number, 1);
      context.strokeStyle = style(`--group-${number}`);
      context.fillRect(0, 0, 18, 18);
      context.strokeRect(0.5, 0.5, 17, 17);
    });
    lines.forEach((item, number) => {
      const context = item.querySelector("canvas").getContext("2d");
      context.clearRect(0, 0, 36, 18);
      context.strokeStyle = style(`--group-${number}`);
      context.lineWidth = 2;
      context.setLineDash(DASHES[number]);
      context.beginPath();
      context.moveTo(0, 9);
      context.lineTo(36, 9);
      context.stroke();
    });
  }

  // Each bar is drawn from the ground up, the highest first, so that the lower ones cover the part that is theirs.
  function stacked(usage) {
    let sums = usage.starts.map(() => 0);
    const heights = kinds.map((item) => (sums = sums.map((sum, at) => sum + usage.groups[item.dataset.group][at])));
    return [usage.starts, ...heights.reverse().map((sums) => sums.map((sum) => sum || null))];
  }

  const latencies = (usage) => [
    usage.starts.map((start) => start + usage.bucket_seconds / 2),
    ...lines.map((item) => usage.latency_ms[item.dataset.line]),
  ];

  function chartIn(id, data, series, extra, told) {
    const place = document.getElementById(id), readout = document.getElementById(id.replace("chart", "readout"));
    const ink = style("--soft"), line = style("--line");
    const axis = { stroke: ink, font: FONT, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    place.hidden = readout.hidden = false;
    place.replaceChildren();
    readout.textContent = "";
    return new uPlot({
      width: place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
      tzDate: (seconds) => (zone === "UTC" ? uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000)),
      scales: {
        x: { range: () => [latest.start, latest.end] },
        y: { range: (_chart, _least, most) => [0, Math.max(most * 1.1, 1)] },
      },
      axes: [
        { ...axis, space: 60, values: (_chart, splits) => splits.map(tick) },
        { ...axis, size: 56, values: (_chart, splits) => splits.map((value) => value.toLocaleString()), ...extra },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [(chart) => { readout.textContent = chart.cursor.idx == null ? "" : told(chart.cursor.idx); }] },
    }, data, place);
  }

  function draw() {
    charts.forEach(({ chart }) => chart.destroy());
    drawLegends();
    const bars = uPlot.paths.bars({ size: [0.85, 60], align: 1 });
    const series = kinds.map((_item, number) => ({
      stroke: style(`--group-${number}`), fill: patternOf(number, devicePixelRatio), paths: bars, width: 1, points: { show: false },
    }));
    const whole = [1, 2, 5].flatMap((first) => [...Array(13).keys()].map((zeros) => first * 10 ** zeros)).sort((a, b) => a - b);
    const requests = chartIn("requests-chart", stacked(latest), series.reverse(), { incrs: whole }, (at) => {
      const counts = kinds.map(({ dataset: { group } }) => [latest.groups[group][at], group]).filter(([count]) => count);
      const words = counts.map(([count, group]) => `${count.toLocaleString()} ${group}`).join(", ");
      return `${moment(latest.starts[at])}: ${words || "no requests"}`;
    });
    const strokes = lines.map((_item, number) => ({
      stroke: style(`--group-${number}`), width: 2, dash: DASHES[number], points: { show: true, size: 5, fill: style("--card") },
    }));
    const latency = chartIn("latency-chart", latencies(latest), strokes, {}, (at) => {
      const words = lines.map(({ dataset: { line } }) => [latest.latency_ms[line][at], line]).filter(([ms]) => ms != null);
      return `${moment(latest.starts[at])}: ${words.map(([ms, line]) => `${line} ${ms.toLocaleString()} ms`).join(", ") || "no requests"}`;
    });
    charts = [{ chart: requests, dataOf: stacked }, { chart: latency, dataOf: latencies }];
  }

  // What is written.

  function cellOf(name, cell) {
    const text = document.createElement(cell.href ? "a" : cell.datetime ? "time" : "bdi");
    if (cell.href) text.href = cell.href;
    if (cell.datetime) text.dateTime = cell.datetime;
    text.append(cell.href ? Object.assign(document.createElement("bdi"), { textContent: cell.text }) : cell.text);
    const element = document.createElement(name);
    if (name === "th") element.scope = "row";
    element.append(text);
    return element;
  }

  function writeTable(body) {
    const name = body.dataset.rows, written = JSON.stringify(latest.tables[name]);
    // Whoever is in the middle of it keeps their place.
    if (written === shown.get(name) || body.contains(document.activeElement)) return;
    const heads = body.parentElement.tHead.rows[0].cells;
    body.replaceChildren(...latest.tables[name].map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((cell, at) => cellOf(at ? "td" : "th", cell)));
      [...row.cells].forEach((cell, at) => { cell.className = heads[at].className; });
      return row;
    }));
    shown.set(name, written);
  }

  function write() {
    page.querySelectorAll("[data-told]").forEach((element) => { element.textContent = latest.told[element.dataset.told] ?? ""; });
    page.querySelectorAll("[data-meter]").forEach((element) => {
      const meter = latest.meters[element.dataset.meter];
      element.hidden = !meter;
      if (meter) Object.assign(element, { max: meter.most, value: meter.value });
    });
    page.querySelectorAll("[data-rows]").forEach(writeTable);
  }

  function take(usage) {
    latest = usage;
    write();
    if (charts.length) charts.forEach(({ chart, dataOf }) => chart.setData(dataOf(latest)));
    else draw();
  }

  // When it is asked.

  const live = document.getElementById("live"), [button, status] = live.children;
  let timer = 0, wait = EVERY_MS, isPaused = false, isOver = false, isAsking = false;
  const say = (text) => { status.textContent = text; };
  const time = (date) => date.toLocaleTimeString();

  function later() {
    clearTimeout(timer);
    if (!isPaused && !isOver && !document.hidden) timer = setTimeout(ask, wait);
  }

  async function ask() {
    if (isAsking) return;
    isAsking = true;
    try {
      const answer = await fetch(page.dataset.source, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      isOver = answer.type === "opaqueredirect" || answer.status === 404;
      if (isOver) say(`Not live: ${answer.status === 404 ? "the key is gone" : "you are signed out"}. Load the page again.`);
      else if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
      else {
        take(await answer.json());
        wait = EVERY_MS;
        say(isPaused ? "Paused." : `Live: as of ${time(new Date())}.`);
      }
    } catch (error) {
      wait = Math.min(2 * wait, LONGEST_MS);
      const why = error.name === "TimeoutError" ? "no answer in time" : error.message;
      say(isPaused ? "Paused." : `Not live: ${why}. Trying again in ${wait / 1000} s.`);
    } finally {
      isAsking = false;
      later();
    }
  }

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Go on" : "Pause";
    clearTimeout(timer);
    if (isPaused) say("Paused.");
    else ask();
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden && !isPaused && !isOver) ask();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (latest) draw(); });
  new ResizeObserver(() => charts.forEach(({ chart }) => {
    const { clientWidth } = chart.root.parentElement;
    if (clientWidth && clientWidth !== chart.width) chart.setSize({ width: clientWidth, height: HEIGHT });
  })).observe(page);

  document.getElementById("zone").textContent = zone === "UTC" ? "The charts and the table are by UTC." : `The charts are by your clock (${zone}), the table is by UTC.`;
  live.hidden = false;
  ask();
})();
