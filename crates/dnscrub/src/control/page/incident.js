// One incident: what it is, what it cost, what was done, step by step.

import { Chart, KNOWN, OUTCOMES } from './chart.js';
import { fill, find, make, repeat, setText, show, tiles } from './dom.js';
import { lostOf } from './incidents.js';
import { standing } from './now.js';
import {
  clock, count, duration, isAttack, kindTitle, machineTime, moment, percent, rate, timeZone, visible,
} from './text.js';

const MEASURES = {
  queries: ['Queries a second', rate],
  'nxdomain-share': ['NXDOMAIN of all answers', percent],
  'servfail-share': ['SERVFAIL of all answers', percent],
  sources: ['Distinct sources a second', rate],
  'new-sources': ['Queries a second from sources never seen', rate],
  'new-names': ['Queries a second for names never seen', rate],
  'qtype-mix': ['How unusual the mix of query types is', percent],
  'name-entropy': ['Entropy of names, bits a character', (value) => value.toFixed(2)],
  amplification: ['Octets out to octets in', (value) => value.toFixed(1)],
  'tcp-connections': ['TCP connections a second', rate],
  'malformed-share': ['Malformed of all packets', percent],
  latency: ['Latency of upstreams', (value) => `${(value * 1000).toFixed(value < 0.01 ? 2 : 0)} ms`],
  loss: ['Not answered by any upstream', percent],
};
const SPOOFED = { likely: 'look forged', unlikely: 'look genuine', unclear: 'may be forged or not' };
const FAULTS = {
  'no-answer': (share) => `${percent(share)} of its queries get no answer`,
  down: () => 'fails its health checks',
  servfail: (share) => `answers ${percent(share)} with SERVFAIL`,
  slow: (seconds) => `takes ${count(seconds * 1000)} ms to answer`,
};
const WHAT = {
  began: 'began', opened: 'named', renamed: 'renamed', spread: 'spread', grew: 'grew', level: 'level', done: 'done',
  undone: 'undone', would: 'would', told: 'told', untold: 'not told', note: 'note', merged: 'merged', closed: 'over',
};

/** The view, made once for an incident and then brought up to date. */
let view;

/** Shows an incident as `GET /v1/incidents/NUMBER` answers it. */
export function showIncident(incident) {
  if (view?.number !== incident.number) {
    view = build(incident.number);
    find('incident').replaceChildren(...view.parts);
  }
  update(incident);
}

/** Says why there is nothing to show. */
export function showNoIncident(why) {
  view = undefined;
  find('incident').replaceChildren(back(), make('p', { class: 'card' }, visible(why)));
}

const back = () => make('p', {}, make('a', { href: '#' }, '← Status'));

function card(title, ...children) {
  const id = `incident-${title.toLowerCase().replaceAll(/[^a-z]+/gu, '-')}`;
  return make('section', { class: 'card', 'aria-labelledby': id }, make('h2', { id }, title), ...children);
}

function tableCard(title) {
  const table = make('table');
  return [card(title, make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': title }, table)), table];
}

function build(number) {
  const title = make('h2', { id: 'incident-title' });
  const said = make('p', { class: 'said' });
  const tags = make('p', { class: 'tags' });
  const playbook = make('a');
  const clockTiles = make('dl', { class: 'tiles', 'aria-label': 'When' });
  const impact = make('dl', { class: 'tiles below', 'aria-label': 'Impact on known clients' });
  const all = new Chart(OUTCOMES, { describe: 'Queries a second by what became of them', newest: false });
  const known = new Chart(KNOWN, { describe: 'Queries a second of known clients', newest: false, low: true });
  const pressure = new Chart([{ label: 'pressure', class: 'pressure', of: (point) => point.pressure }],
    { describe: 'Pressure, 0 to 1', newest: false, low: true, unit: (value) => value.toFixed(2) });
  const timeline = make('ol', { class: 'timeline' });
  const [actions, actionTable] = tableCard('What was done');
  const [evidence, evidenceTable] = tableCard('Evidence');
  const [servers, serverTable] = tableCard('Name servers that fail');
  const [zones, zoneTable] = tableCard('Zones');
  const [names, nameTable] = tableCard('Names');
  const [sources, sourceTable] = tableCard('Sources');
  const why = make('p', { class: 'quiet said' });
  sources.querySelector('h2').after(why);
  const dashed = make('p', { class: 'quiet' }, 'Dashed lines: it began, it was named, it was over.');
  return {
    number, title, said, tags, playbook, clockTiles, impact, all, known, pressure, timeline, actionTable, evidenceTable,
    servers, serverTable, zoneTable, nameTable, sourceTable, why,
    parts: [
      back(),
      make('header', { class: 'incident-head' }, make('p', { class: 'quiet' }, `Incident ${number}`), title, said, tags,
        make('p', {}, playbook)),
      clockTiles,
      card('Queries a second', all.element, dashed),
      card('Known clients', make('p', { class: 'quiet' }, 'Sources that asked before it began are taken for legitimate.'),
        impact, known.element),
      card('Pressure', pressure.element),
      card('Time line', timeline),
      actions,
      servers,
      make('div', { class: 'pair' }, evidence, sources, zones, names),
    ],
  };
}

function update(incident) {
  const { closed, began, opened } = incident;
  const kind = incident.of ? `${kindTitle(incident.kind)}: ${kindTitle(incident.of).toLowerCase()}` : kindTitle(incident.kind);
  setText(view.title, kind);
  setText(view.said, visible(incident.sentence));
  repeat(view.tags, tagsOf(incident), () => make('span'), (tag, [text, name]) => {
    setText(tag, text);
    tag.className = `tag ${name}`;
  });
  const address = `/playbooks/${incident.kind}`;
  if (view.playbook.getAttribute('href') !== address) view.playbook.setAttribute('href', address);
  setText(view.playbook, `Playbook: ${kindTitle(incident.kind).toLowerCase()}`);
  tiles(view.clockTiles, [
    { title: 'Began', value: clock(began), about: moment(began) },
    { title: 'Named after', value: duration(opened - began), about: clock(opened) },
    closed === null
      ? { title: 'Going on for', value: duration(Date.now() / 1000 - began), class: 'bad', about: 'not over' }
      : { title: 'Took', value: duration(closed - began), about: `over at ${clock(closed)}` },
    { title: 'Peak', value: `${count(incident.peak.queries)}/s`, about: `at ${clock(incident.peak.at)}` },
    { title: 'Shed', value: count(incident.impact.shed), about: incident.kernel_dropped
      ? `and ${count(incident.kernel_dropped)} packets in the kernel` : 'queries' },
    { title: 'Confidence', value: percent(incident.confidence), about: 'that it is this' },
  ]);
  const { impact } = incident;
  tiles(view.impact, [
    { title: 'Asked', value: count(impact.asked) },
    { title: 'Served', value: count(impact.served) },
    { title: 'Told to come back', value: count(impact.challenged) },
    { title: 'Lost', value: count(impact.lost), about: lostOf(impact), class: impact.lost > impact.asked / 100 ? 'bad' : '' },
    { title: 'Impaired for', value: duration(impact.seconds_impaired), about: 'more than 1 % lost' },
  ]);
  plots(incident);
  repeat(view.timeline, incident.timeline, timelineItem, updateTimelineItem);
  tables(incident);
}

function tagsOf(incident) {
  const tags = [
    incident.closed === null ? ['going on', 'bad'] : ['over', 'good'],
    isAttack(incident.kind) ? ['attack', 'bad'] : ['not an attack', 'warn'],
  ];
  for (const part of (incident.zones ?? []).slice(0, 3)) tags.push([visible(part.zone), '']);
  return tags;
}

function plots({ points, began, opened, closed }) {
  const first = points[0];
  const last = points.at(-1);
  const from = first ? first.at : began - 60;
  const to = last ? last.at + last.seconds : opened + 60;
  const moments = [began, opened, ...(closed === null ? [] : [closed])];
  for (const chart of [view.all, view.known, view.pressure]) chart.update(points, from, Math.max(to, from + 10), moments);
}

function timelineItem() {
  return make('li', {}, make('time'), make('span', { class: 'what' }), make('span', { class: 'said' }));
}

function updateTimelineItem(item, entry) {
  const [time, what, said] = item.children;
  setText(time, clock(entry.at));
  time.dateTime = machineTime(entry.at);
  time.title = `${moment(entry.at)} ${timeZone()}`;
  setText(what, WHAT[entry.what] ?? visible(entry.what));
  setText(said, visible(entry.text));
}

function tables(incident) {
  fill(view.actionTable, [
    { title: 'When', class: 'nowrap' }, { title: 'What', head: true, class: 'said' }, { title: 'By', class: 'nowrap wide' }, { title: 'In force', class: 'nowrap' },
  ], doneOf(incident).map((action) => [
    clock(action.at), action.text, action.by, inForce(action, incident.closed),
  ]), 'Nothing.');
  fill(view.evidenceTable, [
    { title: 'Measure', head: true }, { title: 'Usual', class: 'n' }, { title: 'Peak', class: 'n' }, { title: 'Off by', class: 'n nowrap' },
  ], incident.evidence.map((reading) => {
    const [label, format] = MEASURES[reading.measure] ?? [reading.measure, rate];
    const where = reading.zone ? `${label}, ${reading.zone}` : label;
    const off = { text: `${count(reading.spreads)} ×`, title: 'times its usual spread' };
    return [where, format(reading.usual), format(reading.peak), off];
  }), 'None was recorded.');
  const failing = incident.upstreams ?? [];
  show(view.servers, failing.length > 0);
  fill(view.serverTable, [
    { title: 'Name server', class: 'key', head: true }, { title: 'Pool', class: 'wide' }, { title: 'What is wrong', class: 'said' },
  ], failing.map((part) => [
    part.name === part.address ? part.address : `${part.name} (${part.address})`, part.pool, FAULTS[part.fault]?.(part.value) ?? part.fault,
  ]), '');
  fill(view.zoneTable, [
    { title: 'Zone', class: 'key', head: true }, { title: 'Usual/s', class: 'n' }, { title: 'Peak/s', class: 'n' }, { title: 'Share', class: 'n' },
  ], incident.zones.map((part) => [part.zone, rate(part.usual), rate(part.rate), percent(part.share)]), 'No zone in particular.');
  fill(view.nameTable, [{ title: 'Name', class: 'key', head: true }, { title: 'Share', class: 'n' }],
    incident.names.map((part) => [part.name, percent(part.share)]), 'No name in particular.');
  const { sources } = incident;
  setText(view.why, incident.kind === 'upstream-failure' ? 'Who asks has nothing to do with it.' : visible(
    `About ${count(sources.distinct)} addresses a second, usually ${count(sources.usual)}; they ${SPOOFED[sources.spoofed] ?? sources.spoofed}. ${sources.why}`));
  fill(view.sourceTable, [
    { title: sources.spoofed === 'likely' ? 'Address, likely a victim' : 'Source', class: 'key', head: true },
    { title: 'Queries/s', class: 'n' }, { title: 'Share', class: 'n' }, { title: 'Is' },
  ], sources.top.map((part) => [
    part.prefix.replace(/\/(32|128)$/u, ''), rate(part.rate), percent(part.share), standing(part),
  ]), 'No source stands out.');
}

/** What was done, and what only would have been, in order. */
function doneOf({ actions, timeline }) {
  const would = timeline.filter((entry) => entry.what === 'would');
  const all = [...actions, ...would.map(({ at, text }) => ({ at, text, by: 'dnscrub', would: true }))];
  return all.sort((one, other) => one.at - other.at);
}

function inForce(action, closed) {
  if (action.would) return { text: 'not done', class: 'quiet' };
  if (action.undone !== null) return `until ${clock(action.undone)}`;
  if (!action.lasting) return 'once';
  return { text: 'still', class: closed === null ? '' : 'warn' };
}
