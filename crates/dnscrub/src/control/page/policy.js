// What is in force: levels, and what rules do.

import { fill, find, show } from './dom.js';
import { clock, count, rate } from './text.js';

const CLASSES = { alert: 'warn', attack: 'bad' };

/** Takes what `GET /v1/levels` answers; what is calm by itself is left out. */
export function showLevels(levels) {
  const shown = levels.filter((level) => level.level !== 'calm' || level.origin);
  show(find('levels-card'), shown.length > 0);
  fill(find('levels'), [
    { title: 'Scope', class: 'key', head: true }, { title: 'Level' }, { title: 'Since', class: 'nowrap' }, { title: 'By' },
    { title: 'Rate', class: 'n wide' }, { title: 'Usual', class: 'n wide' },
  ], shown.map((level) => [
    level.scope, { text: level.level, class: CLASSES[level.level] ?? '' }, level.since ? clock(level.since) : '–', by(level),
    level.rate === null ? '–' : `${rate(level.rate)}/s`, level.usual === null ? '–' : `${rate(level.usual)}/s`,
  ]), '');
}

function by({ origin, incident, until, why }) {
  if (origin === 'incident') return { text: `incident ${incident}`, href: `#incident-${incident}` };
  if (origin === 'operator') return `an operator, until ${clock(until)}`;
  return why ? `signal ${why}` : '–';
}

/** Takes what `GET /v1/rules` answers. */
export function showRules(rules) {
  show(find('rules-card'), rules.length > 0);
  fill(find('rules'), [
    { title: 'Rule', class: 'key', head: true }, { title: 'Matched', class: 'n' }, { title: 'Done', class: 'said' },
    { title: 'Held back', class: 'n' }, { title: 'Mode' },
  ], rules.map((rule) => [
    rule.name, count(rule.matched), done(rule), count(rule.held_back), mode(rule),
  ]), '');
}

function done({ acted, routed }) {
  const parts = Object.entries(acted).filter(([, hits]) => hits > 0).map(([action, hits]) => `${action} ${count(hits)}`);
  if (routed > 0) parts.push(`routed ${count(routed)}`);
  return parts.join(', ') || '–';
}

function mode({ observe, from_level: from }) {
  if (observe) return { text: 'observe', class: 'warn' };
  return from && from !== 'calm' ? `from level ${from}` : 'enforce';
}
