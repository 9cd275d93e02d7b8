// The overview: what the last ten minutes and seconds look like.

import { Chart, OUTCOMES } from './chart.js';
import { fill, find, setClass, setText, show, tiles } from './dom.js';
import { clock, count, duration, latency, percent, rate, timeZone, visible } from './text.js';

/** Seconds that the chart shows. */
const SHOWN = 600;
/** Seconds in which known clients are counted. */
const MINUTE = 60;

const chart = new Chart(OUTCOMES, { describe: 'Queries a second by what became of them' });
find('rate').append(chart.element);

/** Points of the last ten minutes, oldest first. */
let points = [];

/** The newest moment that is known; only what is newer needs to be asked for. */
export const newest = () => points.at(-1)?.at;

/** After another start of the program its clock and its points are others. */
export function forgetPoints() {
  points = [];
}

/** Takes what `GET /v1/live` answers. */
export function showLive(live) {
  const since = newest() ?? -Infinity;
  points.push(...live.points.filter((point) => point.at > since));
  const last = points.at(-1);
  const to = last ? last.at + last.seconds : Date.now() / 1000;
  points = points.filter((point) => point.at >= to - SHOWN);
  chart.update(points, to - SHOWN, to);
  setText(find('rate-when'), last ? `the last 10 minutes, until ${clock(to)}` : 'nothing measured yet');
  showTop(live.overview);
}

function showTop({ zones = [], names = [], sources = [], qtypes = [] }) {
  fill(find('zones'), [
    { title: 'Zone', class: 'key', head: true }, { title: 'Queries/s', class: 'n' }, { title: 'Usual', class: 'n' },
    { title: 'Shed/s', class: 'n' }, { title: 'NXDOMAIN', class: 'n wide' },
  ], zones.map((zone) => [
    zone.zone === '.' ? 'elsewhere' : zone.zone, rate(zone.queries), rate(zone.usual),
    { text: rate(zone.shed), class: zone.shed > zone.queries / 100 ? 'warn' : '' }, percent(zone.nxdomain_share),
  ]), 'No queries in the last seconds.');
  fill(find('sources'), [
    { title: 'Source', class: 'key', head: true }, { title: 'Queries/s', class: 'n' }, { title: 'Share', class: 'n' }, { title: 'Is' },
  ], sources.map((source) => [
    source.prefix.replace(/\/(32|128)$/u, ''), rate(source.rate), percent(source.share), standing(source),
  ]), 'No queries in the last seconds.');
  fill(find('names'), [{ title: 'Name', class: 'key', head: true }, { title: 'Share', class: 'n' }],
    names.map((name) => [name.name, percent(name.share)]), 'No queries in the last seconds.');
  fill(find('qtypes'), [{ title: 'Type', class: 'key', head: true }, { title: 'Share', class: 'n' }],
    qtypes.map((part) => [part.qtype, percent(part.share)]), 'No queries in the last seconds.');
}

/** What is known of a source. */
export function standing(source) {
  if (source.verified) return { text: 'verified', class: 'good' };
  return source.known ? 'known' : { text: 'new', class: 'quiet' };
}

/** Takes what `GET /v1/status`, `GET /v1/upstreams` and `GET /v1/levels` answer. */
export function showStatus(status, upstreams, levels) {
  const attacked = levels.filter((level) => level.scope !== 'whole' && level.level === 'attack').length;
  showBadge(status.level, attacked);
  tiles(find('tiles'), glance(status, upstreams, attacked));
  showUpstreams(upstreams);
  const row = (name, counts) => [name, ...['received', 'forwarded', 'answered', 'dropped', 'expired', 'in_flight', 'queued']
    .map((field) => count(counts[field]))];
  fill(find('totals'), [
    { title: 'Over', head: true }, ...['Received', 'Forwarded', 'Answered here', 'Dropped', 'Expired', 'In flight', 'Queued']
      .map((title) => ({ title, class: 'n' })),
  ], [row('UDP', status.udp), row('TCP', status.tcp)], '');
  setText(find('about'), visible(
    `dnscrub ${status.version}, up for ${duration(status.uptime_seconds)}; ${status.configuration.file}, generation `
    + `${status.configuration.generation}. Times are ${timeZone()}.`));
}

/** The level of the whole; where that is no attack, whether one is on somewhere. */
function showBadge(level, attacked) {
  const badge = find('level');
  show(badge, Boolean(level));
  if (!level) return;
  // "attack" alone would say that there is one, beside a crowd or a broken server
  const whole = level.level === 'calm' ? level.level : `level ${level.level}`;
  const inPart = attacked > 0 && level.level !== 'attack';
  setText(badge, visible(inPart ? `${whole}, ${zonesAt(attacked)}` : whole));
  setClass(badge, `badge ${inPart ? 'attack' : level.level}`);
}

const zonesAt = (attacked) => `${count(attacked)} ${attacked === 1 ? 'zone' : 'zones'} at attack`;

function glance(status, upstreams, attacked) {
  const last = points.at(-1);
  const highest = Math.max(0, ...points.map((point) => point.queries));
  const recent = points.filter((point) => last && point.at > last.at - MINUTE);
  const sum = (of) => recent.reduce((all, point) => all + of(point) * point.seconds, 0);
  const known = sum((point) => point.known);
  const lost = sum((point) => point.known_lost);
  const pools = status.pools ?? [];
  const pressure = Math.max(status.proxy_pressure ?? 0, ...pools.map((pool) => pool.pressure));
  const queued = pools.reduce((all, pool) => all + pool.queued, 0);
  const worst = pools.find((pool) => pool.pressure >= pressure && pressure > 0);
  const level = status.level;
  const { total, usable } = status.upstreams;
  const latencies = upstreams.map((upstream) => upstream.latency_ms).filter((ms) => ms !== null);
  const blocked = status.blocklist.static_entries + status.blocklist.dynamic_entries;
  return [
    { title: 'Queries a second', value: last ? count(last.queries) : '–', about: last ? `peak ${count(highest)} in 10 min` : 'not measured yet' },
    {
      title: 'Known clients', value: known > 0 ? percent(Math.max(0, 1 - lost / known)) : '–',
      class: known > 0 && lost / known > 0.01 ? 'bad' : '',
      about: known > 0 ? `kept; ${count(lost)} lost in 1 min` : 'none in the last minute',
    },
    {
      title: 'Pressure', value: pressure.toFixed(2), class: pressure >= 0.5 ? 'bad' : pressure >= 0.05 ? 'warn' : '',
      about: queued > 0 ? `${count(queued)} waiting` : worst ? `pool ${worst.name}` : 'nothing waits',
    },
    {
      title: 'Defence level', value: level ? level.level : '–',
      class: { alert: 'warn', attack: 'bad' }[level?.level] ?? '',
      about: [
        level?.since ? `since ${clock(level.since)}` : 'since the start', level?.why, attacked > 0 && zonesAt(attacked),
      ].filter(Boolean).join(', '),
    },
    {
      title: 'Upstreams', value: `${usable} of ${total}`, class: usable === 0 ? 'bad' : usable < total ? 'warn' : '',
      about: usable === 0 ? 'none can be used' : latencies.length ? `fastest ${latency(Math.min(...latencies))}` : 'no answer yet',
    },
    { title: 'Blocked', value: count(blocked), about: `${count(status.blocklist.dynamic_entries)} by rules and people` },
  ];
}

const STATES = { up: 'good', unchecked: '', untested: 'quiet', suspect: 'warn', down: 'bad' };

function showUpstreams(upstreams) {
  fill(find('upstreams'), [
    { title: 'Upstream', class: 'key', head: true }, { title: 'Pool', class: 'wide' }, { title: 'State' },
    { title: 'For', class: 'n nowrap' }, { title: 'Latency', class: 'n' }, { title: 'Unanswered', class: 'n wide' },
    { title: 'of', class: 'n wide' }, { title: 'Forwarded', class: 'n wide' }, { title: 'Answered', class: 'n wide' },
    { title: 'Timeouts', class: 'n' },
  ], upstreams.map((upstream) => [
    upstream.name === upstream.address ? upstream.address : { text: upstream.name, title: upstream.address },
    upstream.pool,
    { text: upstream.state, class: STATES[upstream.state] ?? '', title: upstream.last_check?.result },
    duration(upstream.since_seconds), latency(upstream.latency_ms),
    { text: count(upstream.outstanding), class: upstream.outstanding >= upstream.limit ? 'warn' : '' }, count(upstream.limit),
    count(upstream.forwarded), count(upstream.answered), count(upstream.timeouts),
  ]), 'There are none.');
}
