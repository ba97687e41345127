// Draws the charts of usage and updates the page while it is visible. All numbers and texts come from the gateway.
"use strict";

(() => {
  const INTERVAL_MS = 5000, MAX_INTERVAL_MS = 60000, TIMEOUT_MS = 10000;
  const HEIGHT = 260, TILE = 8, FONT = "12px system-ui, sans-serif";
  const DASHES = [[], [8, 4], [2, 3]];
  const page = document.getElementById("usage");
  // Days are in UTC. In another time zone they would begin in the middle of a day.
  const zone = page.dataset.period === "month" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;
  const groups = [...page.querySelectorAll("[data-group]")];
  const lines = [...page.querySelectorAll("[data-line]")];
  const renderedRows = new Map(); // by table, as JSON: unchanged tables are not rendered again
  let charts = [], latest = null;

  // Charts. Groups differ by color and by pattern, so that nobody has to rely on color alone.

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
    groups.forEach((item, number) => {
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

  // Every bar starts at zero. The tallest sum is drawn first, so that each shorter one covers its own part.
  function stacked(usage) {
    let sums = usage.starts.map(() => 0);
    const heights = groups.map((item) => (sums = sums.map((sum, at) => sum + usage.groups[item.dataset.group][at])));
    return [usage.starts, ...heights.reverse().map((sums) => sums.map((sum) => sum || null))];
  }

  const latencies = (usage) => [
    usage.starts.map((start) => start + usage.bucket_seconds / 2),
    ...lines.map((item) => usage.latency_ms[item.dataset.line]),
  ];

  function createChart(id, data, series, extra, describe) {
    const container = document.getElementById(id), readout = document.getElementById(id.replace("chart", "readout"));
    const ink = style("--muted"), line = style("--line");
    const axis = { stroke: ink, font: FONT, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    container.hidden = readout.hidden = false;
    container.replaceChildren();
    readout.textContent = "";
    return new uPlot({
      width: container.clientWidth,
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
      hooks: { setCursor: [(chart) => { readout.textContent = chart.cursor.idx == null ? "" : describe(chart.cursor.idx); }] },
    }, data, container);
  }

  function draw() {
    charts.forEach(({ chart }) => chart.destroy());
    drawLegends();
    const bars = uPlot.paths.bars({ size: [0.85, 60], align: 1 });
    const series = groups.map((_item, number) => ({
      stroke: style(`--group-${number}`), fill: patternOf(number, devicePixelRatio), paths: bars, width: 1, points: { show: false },
    }));
    const whole = [1, 2, 5].flatMap((first) => [...Array(13).keys()].map((zeros) => first * 10 ** zeros)).sort((a, b) => a - b);
    const requests = createChart("requests-chart", stacked(latest), series.reverse(), { incrs: whole }, (at) => {
      const counts = groups.map(({ dataset: { group } }) => [latest.groups[group][at], group]).filter(([count]) => count);
      const text = counts.map(([count, group]) => `${count.toLocaleString()} ${group}`).join(", ");
      return `${moment(latest.starts[at])}: ${text || "no requests"}`;
    });
    const strokes = lines.map((_item, number) => ({
      stroke: style(`--group-${number}`), width: 2, dash: DASHES[number], points: { show: true, size: 5, fill: style("--card") },
    }));
    const latency = createChart("latency-chart", latencies(latest), strokes, {}, (at) => {
      const values = lines.map(({ dataset: { line } }) => [latest.latency_ms[line][at], line]).filter(([ms]) => ms != null);
      return `${moment(latest.starts[at])}: ${values.map(([ms, line]) => `${line} ${ms.toLocaleString()} ms`).join(", ") || "no requests"}`;
    });
    charts = [{ chart: requests, dataOf: stacked }, { chart: latency, dataOf: latencies }];
  }

  // Texts, meters and tables.

  function createCell(name, cell) {
    const text = document.createElement(cell.href ? "a" : cell.datetime ? "time" : "bdi");
    if (cell.href) text.href = cell.href;
    if (cell.datetime) text.dateTime = cell.datetime;
    text.append(cell.href ? Object.assign(document.createElement("bdi"), { textContent: cell.text }) : cell.text);
    const element = document.createElement(name);
    if (name === "th") element.scope = "row";
    element.append(text);
    return element;
  }

  function renderTable(body) {
    const name = body.dataset.rows, json = JSON.stringify(latest.tables[name]);
    // A table that contains the focus is left alone, so that keyboard users keep their position.
    if (json === renderedRows.get(name) || body.contains(document.activeElement)) return;
    const heads = body.parentElement.tHead.rows[0].cells;
    body.replaceChildren(...latest.tables[name].map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((cell, at) => createCell(at ? "td" : "th", cell)));
      [...row.cells].forEach((cell, at) => { cell.className = heads[at].className; });
      return row;
    }));
    renderedRows.set(name, json);
  }

  function render() {
    page.querySelectorAll("[data-text]").forEach((element) => { element.textContent = latest.told[element.dataset.text] ?? ""; });
    page.querySelectorAll("[data-meter]").forEach((element) => {
      const meter = latest.meters[element.dataset.meter];
      element.hidden = !meter;
      if (meter) Object.assign(element, { max: meter.most, value: meter.value });
    });
    page.querySelectorAll("[data-rows]").forEach(renderTable);
  }

  function update(usage) {
    latest = usage;
    render();
    if (charts.length) charts.forEach(({ chart, dataOf }) => chart.setData(dataOf(latest)));
    else draw();
  }

  // Polling.

  const live = document.getElementById("live"), [button, status] = live.children;
  let timer = 0, interval = INTERVAL_MS, isPaused = false, isOver = false, isFetching = false;
  const showStatus = (text) => { status.textContent = text; };
  const time = (date) => date.toLocaleTimeString();

  function schedule() {
    clearTimeout(timer);
    if (!isPaused && !isOver && !document.hidden) timer = setTimeout(poll, interval);
  }

  async function poll() {
    if (isFetching) return;
    isFetching = true;
    try {
      const response = await fetch(page.dataset.source, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      isOver = response.type === "opaqueredirect" || response.status === 404;
      if (isOver) showStatus(`Updates stopped: ${response.status === 404 ? "the key no longer exists" : "you are signed out"}. Reload the page.`);
      else if (!response.ok) throw new Error(`the gateway responded with ${response.status}`);
      else {
        update(await response.json());
        interval = INTERVAL_MS;
        showStatus(isPaused ? "Paused." : `Live. Updated at ${time(new Date())}.`);
      }
    } catch (error) {
      interval = Math.min(2 * interval, MAX_INTERVAL_MS);
      const reason = error.name === "TimeoutError" ? "the gateway did not respond in time" : error.message;
      showStatus(isPaused ? "Paused." : `Not live: ${reason}. Retrying in ${interval / 1000} s.`);
    } finally {
      isFetching = false;
      schedule();
    }
  }

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Resume" : "Pause";
    clearTimeout(timer);
    if (isPaused) showStatus("Paused.");
    else poll();
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden && !isPaused && !isOver) poll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (latest) draw(); });
  new ResizeObserver(() => charts.forEach(({ chart }) => {
    const { clientWidth } = chart.root.parentElement;
    if (clientWidth && clientWidth !== chart.width) chart.setSize({ width: clientWidth, height: HEIGHT });
  })).observe(page);

  document.getElementById("zone").textContent = zone === "UTC" ? "Times are in UTC." : `Times in the charts are in your time zone (${zone}). Times in the table are in UTC.`;
  live.hidden = false;
  poll();
})();
