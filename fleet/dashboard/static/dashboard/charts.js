/* Draws each [data-chart] from the options in its JSON script, in the colours of the present theme. */
"use strict";
(() => {
  const UNITS = {
    bytes: (v) => {
      const units = ["B", "KiB", "MiB", "GiB"];
      let at = 0;
      while (Math.abs(v) >= 1024 && at < units.length - 1) { v /= 1024; at += 1; }
      return `${at && v < 100 ? Number(v.toFixed(1)) : Math.round(v)} ${units[at]}`;
    },
    us: (v) => (v >= 1000 ? `${Number((v / 1000).toPrecision(3))} ms` : `${Number(v.toPrecision(3))} µs`),
    percent: (v) => `${Number((v * 100).toFixed(1))} %`,
    count: (v) => v.toLocaleString("en-GB"),
  };
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (name) => {
    // ECharts cannot read oklch() or var(); the browser turns any colour into rgb.
    const probe = document.createElement("i");
    probe.style.color = style(name) || name;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = found;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
    return `rgb(${r}, ${g}, ${b})`;
  };

  /* One line a series: what the server wrote for the point, else its value and n. Built as text, never as HTML. */
  const tip = (option) => (found) => {
    const box = document.createElement("div");
    const say = (text, bold) => { const p = document.createElement(bold ? "strong" : "div"); p.textContent = text; box.append(p); };
    const points = [].concat(found).filter((point) => !(point.data.value[1] == null) && !HIDDEN.has(point.seriesName));
    if (Array.isArray(found) && points.length) say(`${new Date(points[0].data.value[0]).toISOString().slice(0, 16).replace("T", " ")} UTC`, true);
    for (const point of points) {
      const value = UNITS[[].concat(option.yAxis)[0].unit](point.data.value[1]);
      const n = point.data.n ? ` (n = ${UNITS.count(point.data.n)})` : "";
      say(`${point.seriesName}: ${point.data.detail ?? value + n}`);
    }
    box.style.cssText = "max-width: 20rem; white-space: normal";
    return box;
  };
  const HIDDEN = new Set(["lower end", "95 % interval"]);

  const themed = (option) => {
    const ink = colour("--tf-ink"), quiet = colour("--tf-quiet"), line = colour("--tf-line"), paper = colour("--tf-paper");
    const axis = (given) => ({
      ...given,
      axisLabel: { color: quiet, hideOverlap: true, ...(UNITS[given.unit] && { formatter: UNITS[given.unit] }), ...given.axisLabel },
      axisLine: { lineStyle: { color: line } },
      splitLine: { lineStyle: { color: line } },
      nameTextStyle: { color: quiet, ...given.nameTextStyle },
    });
    return {
      animation: false,
      textStyle: { fontFamily: style("--tblr-font-sans-serif") || "sans-serif", color: ink },
      ...option,
      xAxis: [].concat(option.xAxis).map(axis),
      yAxis: [].concat(option.yAxis).map(axis),
      legend: { textStyle: { color: ink }, inactiveColor: quiet, itemWidth: 18, itemHeight: 10, itemGap: 16, ...option.legend },
      tooltip: { backgroundColor: paper, borderColor: line, textStyle: { color: ink }, confine: true, formatter: tip(option), ...option.tooltip },
      series: option.series.map((series) => ({
        ...series,
        ...(series.markLine && {
          markLine: { ...series.markLine, label: { color: ink, textBorderColor: paper, textBorderWidth: 3, ...series.markLine.label } },
        }),
      })),
    };
  };

  const draw = (box) => {
    const data = document.getElementById(box.dataset.chart);
    if (!data || typeof echarts === "undefined") return;
    const chart = echarts.getInstanceByDom(box) ?? echarts.init(box, null, { renderer: "svg" });
    chart.setOption(themed(JSON.parse(data.textContent)), { notMerge: true });
    if (box.dataset.group) chart.group = box.dataset.group;
    if (!box.dataset.drawn) new ResizeObserver(() => box.isConnected && chart.resize()).observe(box);
    box.dataset.drawn = "yes";
  };
  const drawAll = () => {
    const boxes = [...document.querySelectorAll("[data-chart]")];
    boxes.forEach(draw);
    new Set(boxes.map((box) => box.dataset.group).filter(Boolean)).forEach((group) => echarts.connect(group));
  };

  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("tinyfleet:theme", drawAll);
  document.addEventListener("htmx:beforeSwap", (event) => {
    event.target.querySelectorAll?.("[data-chart]").forEach((box) => echarts.getInstanceByDom(box)?.dispose());
  });
  document.addEventListener("htmx:afterSettle", drawAll);
})();
