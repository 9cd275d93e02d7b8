// Looks up addresses in the blocklist, and lists its entries.

import { get, Refused } from './api.js';
import { fill, find, make, setText, show } from './dom.js';
import { count, duration, moment, visible } from './text.js';

const PAGE = 50;

const seconds = (text) => Date.parse(text) / 1000;
const plain = (prefix) => prefix.replace(/\/(32|128)$/u, '');

/** Who added an entry, in words. */
function origin(text) {
  const [kind, name] = text.split(/:(.*)/su);
  return { list: `list file ${name}`, rule: `rule ${name}`, detector: `detector ${name}`, api: 'the API', cli: 'an operator' }[kind] ?? text;
}

function ends(entry) {
  if (!entry.expires) return 'never';
  return `in ${duration(Math.max(1, seconds(entry.expires) - Date.now() / 1000))}`;
}

/** Answers the form. `failed` hears of what is not about the address. */
export function prepareBlocklist(failed) {
  find('search').addEventListener('submit', (event) => {
    event.preventDefault();
    look(find('address').value.trim()).catch(failed);
  });
  find('entries').addEventListener('toggle', () => {
    if (find('entries').open) list(0).catch(failed);
  });
  find('more').addEventListener('click', () => list(shown.length).catch(failed));
}

async function look(address) {
  const found = find('found');
  try {
    say(found, await get(`/v1/blocklist/entry?address=${encodeURIComponent(address)}`));
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure;
    found.replaceChildren(make('p', { class: 'bad' }, visible(failure.message)));
  }
}

function say(found, { prefix, blocked, never_blocked: never, entries }) {
  const head = blocked
    ? make('p', {}, make('b', { class: 'bad' }, `${plain(prefix)} is blocked`))
    : make('p', {}, make('b', { class: 'good' }, `${plain(prefix)} is not blocked`));
  const lines = entries.map((entry) => make('p', {}, visible(
    `${entry.prefix}: ${entry.reason || 'no reason given'}; by ${origin(entry.origin)}, since ${moment(seconds(entry.created))}, `
    + `ends ${ends(entry)}; ${count(entry.hits)} packets dropped`)));
  if (never) lines.push(make('p', {}, visible(`${never} is never blocked: blocklist.never-block says so.`)));
  found.replaceChildren(head, ...lines);
}

let shown = [];

async function list(offset) {
  const page = await get(`/v1/blocklist?offset=${offset}&limit=${PAGE}`);
  shown = [...shown.slice(0, offset), ...page.entries];
  fill(find('entry-table'), [
    { title: 'Prefix', class: 'key', head: true }, { title: 'Why', class: 'said' }, { title: 'By' }, { title: 'Ends', class: 'nowrap' }, { title: 'Dropped', class: 'n' },
  ], shown.map((entry) => [
    plain(entry.prefix), entry.reason || '–', origin(entry.origin), ends(entry), count(entry.hits),
  ]), 'Nobody is blocked.');
  show(find('more'), shown.length < page.total);
  setText(find('more'), `Show more of ${count(page.total)}`);
}
