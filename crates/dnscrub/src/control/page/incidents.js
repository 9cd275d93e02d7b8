// The list of incidents: those that go on, on top of the page, and all of them.

import { fill, find, make, repeat, setClass, setText, show } from './dom.js';
import { clock, count, duration, isAttack, kindTitle, moment, percent, visible, zonesOf } from './text.js';

/** The address of an incident's view. */
export const addressOf = (number) => `#incident-${number}`;

/** Takes what `GET /v1/incidents` answers. */
export function showIncidents(incidents) {
  const open = incidents.filter((incident) => incident.closed === null);
  show(find('open'), open.length > 0);
  repeat(find('open-list'), open, openItem, updateOpenItem);
  document.title = open.length > 0 ? `(${open.length}) dnscrub` : 'dnscrub';
  fill(find('past'), [
    { title: 'No.', class: 'n' }, { title: 'What', head: true, class: 'nowrap' }, { title: 'Began', class: 'nowrap' },
    { title: 'Took', class: 'n' }, { title: 'Zones', class: 'key wide' }, { title: 'Peak', class: 'n wide' }, { title: 'Known clients lost', class: 'n' },
  ], incidents.map((incident) => [
    { text: String(incident.number), href: addressOf(incident.number) },
    { text: kindTitle(incident.kind), href: addressOf(incident.number) },
    moment(incident.began),
    incident.closed === null ? { text: 'going on', class: 'bad' } : duration(incident.closed - incident.began),
    zonesOf(incident) || '–',
    `${count(incident.peak)}/s`,
    lostOf(incident),
  ]), 'None so far.');
}

/** The share of known clients' queries that were lost. */
export function lostOf(impact) {
  return impact.asked > 0 ? percent(impact.lost / impact.asked) : '–';
}

function openItem() {
  return make('li', {}, make('a', {}, make('b'), make('span', { class: 'quiet' }), make('span', { class: 'said' })));
}

function updateOpenItem(item, incident) {
  const link = item.firstElementChild;
  const address = addressOf(incident.number);
  if (link.getAttribute('href') !== address) link.setAttribute('href', address);
  setClass(link, isAttack(incident.kind) ? 'attack' : '');
  const [title, when, said] = link.children;
  const zones = zonesOf(incident);
  setText(title, `${kindTitle(incident.kind)}${zones ? ` on ${zones}` : ''}`);
  setText(when, `no. ${incident.number}, since ${clock(incident.began)}`);
  setText(said, visible(incident.sentence));
}
