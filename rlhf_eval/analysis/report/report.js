"use strict";
// Draws the page's plots from the data element. Labels arrive with their markup already escaped for Plotly.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7a5230"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const LABELLED = 30;
  const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const element = (id) => document.getElementById(id);
  const narrow = () => document.body.clientWidth < 640;
  const one = (value) => value.toFixed(1).replace("-", "−");

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    return { paper: read("paper"), panel: read("panel"), ink: read("ink"), soft: read("soft"), rule: read("rule"), accent: read("accent") };
  }

  function axis(look, title, more) {
    return Object.assign({
      title: { text: title, standoff: 12, font: { size: 13 } }, gridcolor: look.rule, linecolor: look.soft, zeroline: false,
      tickfont: { size: 12 }, automargin: true, fixedrange: false,
    }, more);
  }

  function layout(look, more) {
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: false,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", color: look.ink, size: 13 },
      margin: { l: 8, r: 12, t: 12, b: 8 }, showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.01, xanchor: "left", yanchor: "bottom", font: { size: 12 } },
      hoverlabel: { bgcolor: look.panel, bordercolor: look.rule, font: { color: look.ink, size: 13 }, align: "left" },
    }, more);
  }

  function marker(look, control) {
    return control
      ? { size: 9, color: look.paper, line: { color: look.soft, width: 2 } }
      : { size: 9, color: look.accent, line: { color: look.accent, width: 2 } };
  }

  function bars(look, control, values) {
    const known = values.map((value) => value.length === 3);
    return {
      type: "data", symmetric: false, color: control ? look.soft : look.accent, thickness: 1.2, width: 0,
      array: values.map((value, i) => (known[i] ? value[2] - value[0] : 0)),
      arrayminus: values.map((value, i) => (known[i] ? value[0] - value[1] : 0)),
    };
  }

  function drawRanking(look) {
    const { rows, title, untrained } = data.ranking;
    const traces = [false, true].map((control) => {
      const own = rows.map((row, i) => [row, i]).filter(([row]) => row.control === control);
      return {
        type: "scatter", mode: "markers", name: control ? "control" : "reward model", marker: marker(look, control),
        x: own.map(([row]) => row.score), y: own.map(([, i]) => i), hoverinfo: "text",
        hovertext: own.map(([row]) => `<b>${row.label}</b><br>${one(row.score)} % (${one(row.low)} to ${one(row.high)})<br>rank ${row.ranks}`),
        error_x: Object.assign(bars(look, control, own.map(([row]) => [row.score, row.low, row.high])), { thickness: 2.2 }),
      };
    }).filter((trace) => trace.x.length);
    if (untrained !== null) {
      traces.push({
        type: "scatter", mode: "lines", name: "untrained policy", x: [untrained, untrained], y: [-0.6, rows.length - 0.4],
        line: { color: look.ink, width: 1, dash: "dash" }, hoverinfo: "text", hovertext: `untrained policy: ${one(untrained)} %`,
      });
    }
    Plotly.react("plot-ranking", traces, layout(look, {
      height: 110 + 27 * rows.length,
      xaxis: axis(look, `${title} (%)`),
      yaxis: axis(look, "", { tickvals: rows.map((_, i) => i), ticktext: rows.map((row) => row.label), range: [rows.length - 0.4, -0.6], showgrid: false, ticks: "", tickfont: { size: narrow() ? 10 : 12 } }),
    }), CONFIG);
  }

  // A side of each point for its label, so that labels overlap neither points, bars nor each other where there is room.
  function sides(points, bars, labels, width, height) {
    const taken = [...points.map(([x, y]) => [x - 7, y - 7, x + 7, y + 7]), ...bars];
    const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    return points.map(([x, y], i) => {
      const w = 6.6 * labels[i].replace(/&\w+;/g, "x").length, h = 15;
      const places = {
        "middle right": [x + 9, y - h / 2, x + 9 + w, y + h / 2], "middle left": [x - 9 - w, y - h / 2, x - 9, y + h / 2],
        "top center": [x - w / 2, y - 9 - h, x + w / 2, y - 9], "bottom center": [x - w / 2, y + 9, x + w / 2, y + 9 + h],
        "top right": [x + 7, y - 7 - h, x + 7 + w, y - 7], "bottom right": [x + 7, y + 7, x + 7 + w, y + 7 + h],
        "top left": [x - 7 - w, y - 7 - h, x - 7, y - 7], "bottom left": [x - 7 - w, y + 7, x - 7, y + 7 + h],
      };
      const frame = [0, 0, width, height];
      const cost = ([, box]) => taken.reduce((sum, other, j) => sum + (j === i ? 0 : overlap(box, other)), 3 * (w * h - overlap(box, frame)));
      const [side, box] = Object.entries(places).reduce((best, place) => (cost(place) < cost(best) - 1 ? place : best));
      taken.push(box);
      return side;
    });
  }

  // The ends of an axis that holds these values with some room around them.
  function range(values) {
    const low = Math.min(...values), high = Math.max(...values), room = 0.07 * (high - low || 1);
    return [low - room, high + room];
  }

  // A scatter of reward models, candidates and controls apart, with labels where there is room for them.
  function scatter(look, points, size, more) {
    const [x0, x1] = range(points.flatMap((p) => p.x)), [y0, y1] = range(points.flatMap((p) => p.y));
    const right = (value) => size[0] * (value - x0) / (x1 - x0), down = (value) => size[1] * (y1 - value) / (y1 - y0);
    const boxes = points.flatMap(({ x, y }) => [
      [right(x[1] ?? x[0]), down(y[0]) - 1.5, right(x[2] ?? x[0]), down(y[0]) + 1.5], [right(x[0]) - 1.5, down(y[2] ?? y[0]), right(x[0]) + 1.5, down(y[1] ?? y[0])],
    ]);
    const labelled = points.length <= LABELLED && !narrow();
    const where = labelled ? sides(points.map((p) => [right(p.x[0]), down(p.y[0])]), boxes, points.map((p) => p.label), ...size) : [];
    return [false, true].map((control) => {
      const own = points.map((p, i) => [p, where[i]]).filter(([p]) => p.control === control);
      return Object.assign({
        type: "scatter", mode: labelled ? "markers+text" : "markers", name: control ? "control" : "reward model",
        x: own.map(([p]) => p.x[0]), y: own.map(([p]) => p.y[0]), marker: marker(look, control),
        text: own.map(([p]) => p.label), textposition: own.map(([, side]) => side || "top center"), cliponaxis: false,
        textfont: { size: 12, color: control ? look.soft : look.ink }, hoverinfo: "text", hovertext: own.map(([p]) => p.hover),
        error_x: bars(look, control, own.map(([p]) => p.x)), error_y: bars(look, control, own.map(([p]) => p.y)),
      }, more);
    }).filter((trace) => trace.x.length);
  }

  function drawCorrelation(look) {
    const chosen = { x: Number(element("x-axis").value), y: Number(element("y-axis").value) };
    const x = data.correlation.x[chosen.x], y = data.correlation.y[chosen.y], div = element("plot-correlation");
    const points = data.correlation.labels.map((label, i) => ({ label, control: data.correlation.controls[i], x: x.values[i], y: y.values[i] }))
      .filter((point) => point.x && point.y);
    const words = (value) => one(value[0]) + (value.length === 3 ? ` (${one(value[1])} to ${one(value[2])})` : "");
    points.forEach((point) => { point.hover = `<b>${point.label}</b><br>${x.title}: ${words(point.x)}<br>${y.title}: ${words(point.y)}`; });
    const found = data.correlation.coefficients[chosen.x][chosen.y];
    const number = (value) => (value === null ? "undefined" : value.toFixed(2).replace("-", "−"));
    element("correlation-words").textContent = found.n < 3
      ? `${found.n} candidates have both: too few for a correlation.`
      : `Over ${found.n} candidates: Spearman ${number(found.spearman)}, Pearson ${number(found.pearson)}.`;
    const height = narrow() ? 420 : 540;
    Plotly.react(div, points.length ? scatter(look, points, [div.clientWidth - 80, height - 110]) : [], layout(look, {
      height, xaxis: axis(look, x.title + x.unit, points.length ? { range: range(points.flatMap((p) => p.x)) } : {}),
      yaxis: axis(look, y.title + y.unit, points.length ? { range: range(points.flatMap((p) => p.y)) } : {}),
    }), CONFIG);
  }

  function drawTraining(look) {
    const { lines, gold } = data.training;
    const rewards = gold ? ["proxy", "gold"] : ["proxy"];
    const words = (label, reward, p) => `<b>${label}</b><br>√KL ${p[0].toFixed(2)}<br>${reward} reward gained: ${p[1].toFixed(3).replace("-", "−")}`;
    let candidates = 0, controls = 0;
    const traces = lines.flatMap((line, i) => {
      const place = line.control ? 1 + controls++ % (DASHES.length - 1) : candidates++;
      const colour = line.control ? look.soft : PALETTE[place % PALETTE.length];
      const dash = line.control ? DASHES[place] : DASHES[Math.floor(place / PALETTE.length) % DASHES.length];
      const own = { type: "scatter", name: line.label, legendgroup: String(i), visible: line.shown ? true : "legendonly", hoverinfo: "text" };
      const traced = rewards.flatMap((reward, panel) => {
        const axes = { xaxis: panel ? "x2" : "x", yaxis: panel ? "y2" : "y" }, fit = line[`${reward}_fit`], drawn = fit.length ? fit : line[reward];
        return [
          Object.assign({ mode: "lines", x: drawn.map((p) => p[0]), y: drawn.map((p) => p[1]), line: { color: colour, dash, width: 2 }, showlegend: panel === 0 }, own, axes, { hoverinfo: "skip" }),
          Object.assign({ mode: "markers", x: line[reward].map((p) => p[0]), y: line[reward].map((p) => p[1]), marker: { size: 6, color: colour }, showlegend: false, hovertext: line[reward].map((p) => words(line.label, reward, p)) }, own, axes),
        ];
      });
      if (gold && line.turn) {
        traced.push(Object.assign({ mode: "markers", x: [line.turn[0]], y: [line.turn[1]], xaxis: "x2", yaxis: "y2", showlegend: false, marker: { size: 11, symbol: "diamond", color: colour, line: { color: look.ink, width: 1.5 } }, hovertext: [`overoptimisation begins<br>${words(line.label, "gold", line.turn)}`] }, own));
      }
      return traced;
    });
    const stacked = narrow() && gold, kl = "√KL to the initial policy (√nats)";
    Plotly.react("plot-training", traces, layout(look, {
      height: (stacked ? 640 : 420) + 18 * Math.ceil(lines.length / (narrow() ? 1 : 4)),
      grid: { rows: stacked ? 2 : 1, columns: gold && !stacked ? 2 : 1, pattern: "independent", xgap: 0.14, ygap: 0.25 },
      legend: { orientation: "h", x: 0, y: stacked ? -0.14 : -0.2, xanchor: "left", yanchor: "top", font: { size: 12 } },
      xaxis: axis(look, kl), yaxis: axis(look, "proxy reward gained (standard deviations)"), xaxis2: axis(look, kl), yaxis2: axis(look, "gold reward gained"),
    }), CONFIG);
  }

  function drawMatrix(look) {
    const { labels, shares } = data.matrix, n = labels.length, small = narrow();
    const places = labels.map((_, i) => i), side = small ? 14 : Math.max(15, Math.min(44, 760 / n));
    const shown = n <= (small ? 6 : 15);
    Plotly.react("plot-matrix", [{
      type: "heatmap", z: shares, x: places, y: places, zmin: 0, zmax: 100, xgap: 1, ygap: 1, hoverongaps: false, hoverinfo: "text",
      colorscale: [[0, "#d55e00"], [0.5, look.panel], [1, "#0072b2"]],
      colorbar: { title: { text: "wins (%)", font: { size: 12 } }, thickness: 12, outlinewidth: 0, tickfont: { size: 11 }, tickvals: [0, 25, 50, 75, 100], len: small ? 1 : 0.8 },
      hovertext: shares.map((row, i) => row.map((share, j) => (share === null ? "" : `<b>${labels[i]}</b> beats ${labels[j]}<br>on ${one(share)} % of the prompts`))),
    }], layout(look, {
      height: Math.max(300, side * n + 190), showlegend: false,
      annotations: shown ? shares.flatMap((row, i) => row.map((share, j) => ({
        x: j, y: i, text: share === null ? "" : share.toFixed(0), showarrow: false,
        font: { size: 12, color: share !== null && Math.abs(share - 50) > 38 ? "#ffffff" : look.ink },
      }))) : [],
      xaxis: axis(look, "", { tickvals: places, ticktext: labels, tickangle: -45, showgrid: false, ticks: "", tickfont: { size: n > 20 || small ? 10 : 12 }, constrain: "domain" }),
      yaxis: axis(look, "", { tickvals: places, ticktext: labels, autorange: "reversed", showgrid: false, ticks: "", tickfont: { size: n > 20 || small ? 10 : 12 } }),
    }), CONFIG);
  }

  function drawLength(look) {
    const { title, controlled_title: controlled, rows } = data.length[Number(element("length-evaluation").value)];
    const div = element("plot-length"), stacked = narrow();
    const point = (row, x, y, words) => ({ label: row.label, control: row.control, x: [x], y: [y], hover: `<b>${row.label}</b><br>${words}` });
    const left = rows.map((row) => point(row, row.mean_characters, row.score, `${row.mean_characters.toFixed(0)} characters<br>${title}: ${one(row.score)}`));
    const right = rows.filter((row) => row.controlled_score !== null)
      .map((row) => point(row, row.score, row.controlled_score, `${title}: ${one(row.score)}<br>${controlled}: ${one(row.controlled_score)}`));
    const size = [(stacked ? div.clientWidth : div.clientWidth / 2) - 90, 330];
    const traces = scatter(look, left, size);
    if (right.length) {
      const all = right.flatMap((p) => [...p.x, ...p.y]), low = Math.min(...all), high = Math.max(...all);
      traces.push({ type: "scatter", mode: "lines", x: [low, high], y: [low, high], xaxis: "x2", yaxis: "y2", name: "no effect", line: { color: look.soft, width: 1, dash: "dash" }, hoverinfo: "skip" });
      traces.push(...scatter(look, right, size, { xaxis: "x2", yaxis: "y2", showlegend: false }));
    }
    Plotly.react(div, traces, layout(look, {
      height: stacked ? 780 : 430,
      grid: { rows: stacked && right.length ? 2 : 1, columns: stacked || !right.length ? 1 : 2, pattern: "independent", xgap: 0.14, ygap: 0.22 },
      xaxis: axis(look, "mean length (characters)", { range: range(left.flatMap((p) => p.x)) }),
      yaxis: axis(look, `${title} (%)`, { range: range(left.flatMap((p) => p.y)) }),
      xaxis2: axis(look, `${title} (%)`, { range: range(right.flatMap((p) => p.x)) }),
      yaxis2: axis(look, `${controlled} (%)`, { range: range(right.flatMap((p) => p.y)) }),
    }), CONFIG);
  }

  function showExample() {
    const chosen = element("example-choice").value;
    document.querySelectorAll(".example").forEach((section) => { section.hidden = section.id !== `example-${chosen}`; });
  }

  const plots = [
    ["ranking", drawRanking], ["correlation", drawCorrelation], ["training", drawTraining], ["matrix", drawMatrix], ["length", drawLength],
  ].filter(([name]) => element(`plot-${name}`));
  const draw = () => { const look = theme(); plots.forEach(([, drawOne]) => drawOne(look)); };
  const on = (id, deed) => { if (element(id)) element(id).addEventListener("change", deed); };

  document.documentElement.classList.add("scripted");
  on("x-axis", () => drawCorrelation(theme()));
  on("y-axis", () => drawCorrelation(theme()));
  on("length-evaluation", () => drawLength(theme()));
  if (element("example-choice")) { on("example-choice", showExample); showExample(); }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = document.body.clientWidth, waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; draw(); } }, 150);
  });
  draw();
})();
