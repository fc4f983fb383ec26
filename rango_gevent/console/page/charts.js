// Candles and prices by Lightweight Charts, rates by uPlot.

import { CandlestickSeries, ColorType, LineSeries, createChart } from "./vendor/lightweight-charts.js";
import uPlot from "./vendor/uPlot.js";

import { byId, colour, paint, themed } from "./paint.js";

const SECONDS = 60;
const TINTS = ["#1f9d78", "#c2762b", "#6b7fd7", "#c2567a", "#8a9a2b", "#4a9dc9"];

/** Local time of day, in so many characters: 12:34, 12:34:56. */
const clock = (time, length) => new Date(time * 1000).toTimeString().slice(0, length);

/** A chart that fills its place and has the page's colours. */
function chartIn(place, secondsVisible) {
  const chart = createChart(place, {
    autoSize: true,
    layout: { attributionLogo: false, background: { type: ColorType.Solid, color: "transparent" }, fontSize: 11 },
    localization: { timeFormatter: (time) => clock(time, 8) },
    timeScale: { rightOffset: 2, borderVisible: false, tickMarkFormatter: (time) => clock(time, secondsVisible ? 8 : 5) },
    rightPriceScale: { borderVisible: false },
    handleScroll: { vertTouchDrag: false },
  });
  themed(() =>
    chart.applyOptions({
      layout: { textColor: colour("soft") },
      grid: { vertLines: { color: colour("line") }, horzLines: { color: colour("line") } },
    }),
  );
  return chart;
}

/** A series whose newest points wait for the next frame. */
class Series {
  #series;
  #waiting = [];
  #newest = -Infinity;
  #place;

  constructor(series, place) {
    this.#series = series;
    this.#place = place;
  }

  clear() {
    this.#waiting = [];
    this.#newest = -Infinity;
    this.#series.setData([]);
    this.#place.dataset.points = 0;
  }

  add(point) {
    if (!(point.time >= this.#newest)) return; // a candle that closed is sent after its successor's first
    if (this.#waiting.at(-1)?.time === point.time) this.#waiting.pop();
    this.#waiting.push(point);
    if (point.time > this.#newest) this.#place.dataset.points = Number(this.#place.dataset.points ?? 0) + 1;
    this.#newest = point.time;
    paint(this.#draw);
  }

  /** Show prices with so many decimals. */
  decimals(precision) {
    this.#series.applyOptions({ priceFormat: { type: "price", precision, minMove: 10 ** -precision } });
  }

  #draw = () => {
    for (const point of this.#waiting.splice(0)) this.#series.update(point);
  };

  applyOptions(options) {
    this.#series.applyOptions(options);
  }
}

export function candles() {
  const place = byId("candles");
  const series = new Series(chartIn(place, false).addSeries(CandlestickSeries, { borderVisible: false }), place);
  themed(() => {
    const [up, down] = [colour("up"), colour("down")];
    series.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
  });
  return series;
}

export function prices() {
  const place = byId("prices");
  const series = new Series(chartIn(place, true).addSeries(LineSeries, { lineWidth: 2 }), place);
  themed(() => series.applyOptions({ color: colour("accent") }));
  return series;
}

/** Events a second of the streams, the first few of them, over the last minute. */
export class Rates {
  #counts = new Map(); // by stream: counts by second, the newest last
  #tints = new Map(); // by stream: the colour of its line
  #drawn = new Map();
  #second = 0;
  #plot = null;
  #shown = "";
  #place = byId("rates");

  constructor() {
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.#place);
    themed(() => (this.#shown = "again"));
  }

  /** Begin to count a stream; returns the colour of its line, empty for none. */
  watch(stream) {
    this.#counts.set(stream, Array(SECONDS).fill(0));
    const taken = new Set(this.#tints.values());
    const tint = TINTS.find((each) => !taken.has(each)) ?? "";
    if (tint) this.#tints.set(stream, tint);
    return tint;
  }

  count(stream) {
    this.#counts.get(stream)[SECONDS - 1] += 1;
  }

  forget(stream) {
    this.#counts.delete(stream);
    this.#tints.delete(stream);
  }

  /** Begin the next second; returns events of the last one by stream. */
  turn(now) {
    const passed = Math.min(SECONDS, Math.max(1, now - (this.#second || now - 1))); // a tab that slept
    this.#second = now;
    const last = new Map([...this.#counts].map(([stream, counts]) => [stream, counts.at(-1)]));
    paint(this.#draw);
    this.#drawn = new Map([...this.#counts].map(([stream, counts]) => [stream, [...counts]]));
    for (const counts of this.#counts.values()) counts.push(...counts.splice(0, passed).fill(0));
    return last;
  }

  #draw = () => {
    const names = [...this.#drawn.keys()].filter((stream) => this.#tints.has(stream));
    const times = Array.from({ length: SECONDS }, (_, n) => this.#second - SECONDS + n);
    const data = [times, ...names.map((stream) => this.#drawn.get(stream))];
    if (names.join() === this.#shown) return void this.#plot.setData(data);
    this.#plot?.destroy();
    this.#shown = names.join();
    this.#plot = new uPlot(this.#options(names), data, this.#place);
    return undefined;
  };

  #options(names) {
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, font: "11px system-ui" };
    const series = names.map((label) => ({ label, stroke: this.#tints.get(label), width: 1.5, points: { show: false } }));
    return { ...this.#size(), series: [{}, ...series], axes: [{ ...axis, size: 26 }, { ...axis, size: 36 }], legend: { show: false }, cursor: { show: false } };
  }

  #size() {
    return { width: this.#place.clientWidth, height: this.#place.clientHeight };
  }
}
