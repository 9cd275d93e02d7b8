// Numbers, times and names as people read them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const clockFormat = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dayFormat = new Intl.DateTimeFormat('en-GB', {
  year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit',
});

export const count = (number) => whole.format(number);

/** Events a second. */
export const rate = (number) => (number < 10 ? tenths : whole).format(number);

/** A share from 0 to 1; one that is not all of it is never rounded up to all. */
export function percent(share) {
  if (!Number.isFinite(share)) return '–';
  const percents = share * 100;
  const digits = percents >= 99 || percents < 10 ? 2 : 1;
  const cut = Math.floor(percents * 10 ** digits + 1e-6) / 10 ** digits;
  return `${Number(cut.toFixed(digits))} %`;
}

/** Milliseconds. */
export function latency(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Seconds in their two largest units. */
export function duration(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, name] of [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']]) {
    const number = Math.floor(rest / unit);
    rest %= unit;
    if (number > 0) parts.push(`${number} ${name}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.length > 0 ? parts.join(' ') : '0 s';
}

const instant = (seconds) => new Date(seconds * 1000);

/** Time of day, from seconds since 1970. */
export const clock = (seconds) => clockFormat.format(instant(seconds));

/** Day and time. */
export const moment = (seconds) => dayFormat.format(instant(seconds));

/** For the `datetime` attribute. */
export const machineTime = (seconds) => instant(seconds).toISOString();

/** Which time of day is shown. */
export function timeZone() {
  const minutes = -new Date().getTimezoneOffset();
  if (minutes === 0) return 'UTC';
  const sign = minutes < 0 ? '−' : '+';
  const hours = Math.floor(Math.abs(minutes) / 60);
  const rest = Math.abs(minutes) % 60;
  return `UTC${sign}${hours}${rest ? `:${String(rest).padStart(2, '0')}` : ''}`;
}

// control characters, and those that would reorder or hide what stands around them
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

/** Text of strangers with everything visible. It is shown as text and never as markup. */
export const visible = (text) =>
  String(text).replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);

const TITLES = {
  'random-subdomains': 'Random-subdomain flood',
  'direct-flood': 'Direct flood',
  reflection: 'Reflection and amplification',
  'spoofed-carpet': 'Spoofed carpet',
  'spoofed-resolvers': 'Spoofed resolvers',
  pulse: 'Pulsing flood',
  'tcp-exhaustion': 'Transfer or TCP exhaustion',
  'malformed-flood': 'Malformed flood',
  'query-loop': 'Query loop',
  'flash-crowd': 'Flash crowd',
  'upstream-failure': 'Upstream failure',
};
const NO_ATTACK = new Set(['query-loop', 'flash-crowd', 'upstream-failure']);

export const kindTitle = (kind) => TITLES[kind] ?? visible(kind);
export const isAttack = (kind) => !NO_ATTACK.has(kind);

/** The zones of an incident in a list, in short. */
export function zonesOf(incident) {
  const zones = incident.zones.map(visible);
  const more = Math.max(0, zones.length - 2) + incident.more_zones;
  if (zones.length === 0) return '';
  return more > 0 ? `${zones.slice(0, 2).join(', ')} and ${more} more` : zones.join(', ');
}
