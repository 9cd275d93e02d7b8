// Rates over time, stacked. The drawing stretches to the width there is; its labels are text beside it, so
// that they stay legible on a phone.

import { make, repeat, setText } from './dom.js';
import { clock, count, rate } from './text.js';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 1000;
const HEIGHT = 1000;

function draw(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The next of 1, 2, 5, 10, 20, 50, and so on. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value * 0.9999) ?? value;
}

/** The axis' upper end and its marks. */
function scale(top) {
  const step = roundUp(Math.max(top, 1) / 4);
  const ceiling = Math.ceil(Math.max(top, 1) / step - 1e-9) * step;
  const marks = [];
  for (let mark = 0; mark <= ceiling * 1.0001; mark += step) marks.push(mark);
  return { ceiling, marks };
}

const short = (value) => (value >= 1e6 ? `${value / 1e6} M` : value >= 1e4 ? `${value / 1e3} k` : rate(value));

function timeMarks(from, to) {
  const span = to - from;
  const step = [5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400]
    .find((each) => span / each <= 6) ?? 604800;
  const marks = [];
  for (let mark = Math.ceil(from / step) * step; mark < to - span * 0.03; mark += step) {
    if (mark > from + span * 0.03) marks.push(mark);
  }
  return marks;
}

/**
 * A chart of `series`: `{ label, class, of }` each, where `of(point)` is a rate. Its legend says the newest
 * values, or those under the pointer.
 */
export class Chart {
  constructor(series, { describe, low = false, newest = true, unit = rate }) {
    this.series = series;
    this.describe = describe;
    this.newest = newest;
    this.unit = unit;
    this.points = [];
    this.numbers = series.map(() => make('b'));
    const legend = make('ul', { class: 'legend' }, ...series.map((one, at) =>
      make('li', {}, make('i', { class: one.class }), one.label, this.numbers[at])));
    this.when = make('span', { class: 'quiet' });
    legend.append(make('li', {}, this.when));
    this.y = make('div', { class: 'y', 'aria-hidden': 'true' });
    this.x = make('div', { class: 'x', 'aria-hidden': 'true' });
    this.svg = draw('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
    this.grid = this.svg.appendChild(draw('path', { class: 'grid' }));
    this.areas = series.map((one) => this.svg.appendChild(draw('path', { class: one.class })));
    this.moments = this.svg.appendChild(draw('path', { class: 'moment' }));
    this.cursor = this.svg.appendChild(draw('path', { class: 'cursor' }));
    this.element = make('div', {}, legend, make('div', { class: low ? 'plot low' : 'plot' }, this.y, this.svg, this.x));
    this.svg.addEventListener('pointermove', (event) => this.point(event));
    this.svg.addEventListener('pointerleave', () => this.leave());
  }

  /** Shows points from one moment to another, in seconds since 1970, with a line at each of `moments`. */
  update(points, from, to, moments = []) {
    this.points = points.filter((point) => point.at + point.seconds > from && point.at < to);
    this.from = from;
    this.to = to;
    const stacks = this.points.map((point) => {
      let sum = 0;
      return this.series.map((one) => { sum += Math.max(0, one.of(point)); return sum; });
    });
    const top = Math.max(0, ...stacks.map((stack) => stack.at(-1)));
    const { ceiling, marks } = scale(top);
    const x = (at) => (Math.min(1, Math.max(0, (at - from) / (to - from))) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT * (1 - value / ceiling)).toFixed(1);
    this.grid.setAttribute('d', marks.map((mark) => `M0 ${y(mark)}H${WIDTH}`).join(''));
    repeat(this.y, marks, () => make('span'), (label, mark) => {
      setText(label, short(mark));
      label.style.bottom = `${mark / ceiling * 100}%`;
    });
    repeat(this.x, timeMarks(from, to), () => make('span'), (label, mark) => {
      setText(label, clock(mark).slice(0, to - from > 300 ? 5 : 8));
      label.style.left = `${(mark - from) / (to - from) * 100}%`;
    });
    this.areas.forEach((area, at) => area.setAttribute('d', this.outline(stacks, at, x, y)));
    this.moments.setAttribute('d', moments.filter((at) => at > from && at < to).map((at) => `M${x(at)} 0V${HEIGHT}`).join(''));
    this.svg.setAttribute('aria-label',
      `${this.describe}, from ${clock(from)} to ${clock(to)}; at most ${count(top)} a second`);
    if (this.pointed === undefined) this.tell(this.newest ? this.points.at(-1) : undefined);
  }

  /** What a series covers: a run of steps for each time without a gap. */
  outline(stacks, at, x, y) {
    let path = '';
    let run = [];
    const close = () => {
      if (run.length === 0) return;
      run.forEach((i, place) => {
        const [begin, end] = this.span(i);
        path += `${place === 0 ? `M${x(begin)} ${y(stacks[i][at])}` : `L${x(begin)} ${y(stacks[i][at])}`}H${x(end)}`;
      });
      for (const i of run.toReversed()) {
        const [begin, end] = this.span(i);
        const below = at === 0 ? 0 : stacks[i][at - 1];
        path += `L${x(end)} ${y(below)}H${x(begin)}`;
      }
      path += 'Z';
      run = [];
    };
    this.points.forEach((point, i) => {
      const before = this.points[i - 1];
      if (before && point.at - (before.at + before.seconds) > 1.5) close();
      run.push(i);
    });
    close();
    return path;
  }

  /** A point lasts until the next one, where that follows at once. */
  span(i) {
    const point = this.points[i];
    const next = this.points[i + 1];
    const end = point.at + point.seconds;
    return [point.at, next && next.at - end <= 1.5 ? next.at : end];
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const at = this.from + (event.clientX - box.left) / box.width * (this.to - this.from);
    this.pointed = this.points.find((point, i) => at >= this.span(i)[0] && at < this.span(i)[1]);
    this.cursor.setAttribute('d', this.pointed ? `M${(at - this.from) / (this.to - this.from) * WIDTH} 0V${HEIGHT}` : '');
    this.tell(this.pointed);
  }

  leave() {
    this.pointed = undefined;
    this.cursor.setAttribute('d', '');
    this.tell(this.newest ? this.points.at(-1) : undefined);
  }

  tell(point) {
    this.series.forEach((one, at) => setText(this.numbers[at], point ? this.unit(Math.max(0, one.of(point))) : ''));
    setText(this.when, point && this.pointed ? `at ${clock(point.at)}` : '');
  }
}

/** What becomes of queries. */
export const OUTCOMES = [
  { label: 'forwarded', class: 'forwarded', of: (point) => point.forwarded },
  { label: 'answered here', class: 'answered', of: (point) => point.answered },
  { label: 'dropped', class: 'dropped', of: (point) => point.dropped },
  { label: 'expired', class: 'expired', of: (point) => point.expired },
];

/** What becomes of queries of known sources. */
export const KNOWN = [
  { label: 'served', class: 'served', of: (point) => point.known_served },
  { label: 'told to come back', class: 'challenged', of: (point) => point.known - point.known_served - point.known_lost },
  { label: 'lost', class: 'lost', of: (point) => point.known_lost },
];
