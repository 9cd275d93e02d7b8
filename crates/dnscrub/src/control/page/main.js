// Asks once a second, shows what comes, says when nothing does.

import { forgetToken, get, hasToken, keepToken, Refused, TokenWanted } from './api.js';
import { prepareBlocklist } from './blocklist.js';
import { find, setText, show } from './dom.js';
import { showIncident, showNoIncident } from './incident.js';
import { showIncidents } from './incidents.js';
import { forgetPoints, newest, showLive, showStatus } from './now.js';
import { showLevels, showRules } from './policy.js';
import { clock, visible } from './text.js';

const SECOND_MS = 1000;
/** Rounds between two looks at what changes slowly. */
const SLOWLY = 2;

let rounds = 0;
let started;
let lostSince;
let timer;
let turn = 0;

/** The incident that the address names, or nothing. */
function incidentAsked() {
  const found = /^#incident-(\d+)$/u.exec(location.hash);
  return found?.[1];
}

async function look() {
  const number = incidentAsked();
  const since = newest();
  const live = await get(since === undefined ? '/v1/live' : `/v1/live?since=${since}`);
  showLive(live);
  if (rounds % SLOWLY === 0) {
    const [status, upstreams, incidents, levels, rules] = await Promise.all(
      ['status', 'upstreams', 'incidents', 'levels', 'rules'].map((what) => get(`/v1/${what}`)));
    if (started !== undefined && started !== status.started) forgetPoints();
    started = status.started;
    showStatus(status, upstreams, levels);
    showIncidents(incidents);
    showLevels(levels);
    showRules(rules);
    if (number !== undefined) await lookAt(number);
  }
  rounds += 1;
  reveal(number);
}

async function lookAt(number) {
  try {
    showIncident(await get(`/v1/incidents/${number}`));
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure;
    showNoIncident(failure.message);
  }
}

/** Shows the view that is asked for. */
function reveal(number) {
  show(find('login'), false);
  show(find('overview'), number === undefined);
  show(find('incident'), number !== undefined);
  show(find('forget'), hasToken());
}

/** Looks now and from then on; what another call began ends there. */
async function round() {
  clearTimeout(timer);
  turn += 1;
  const mine = turn;
  try {
    if (!document.hidden) {
      await look();
      if (mine === turn) connected();
    }
  } catch (failure) {
    if (mine === turn) failed(failure);
    if (failure instanceof TokenWanted) return;
  }
  if (mine === turn) timer = setTimeout(round, SECOND_MS);
}

function connected() {
  lostSince = undefined;
  show(find('connection'), false);
  document.body.classList.remove('stale');
  setText(find('updated'), `as of ${clock(Date.now() / 1000)}`);
}

function failed(failure) {
  if (failure instanceof TokenWanted) {
    askForToken();
    return;
  }
  const refused = failure instanceof Refused;
  if (!refused && !(failure instanceof TypeError) && failure.name !== 'TimeoutError') {
    // a mistake of this page's own: it is to be seen, and to be found in the console
    console.error(failure);
  }
  lostSince ??= Date.now() / 1000;
  const banner = find('connection');
  setText(banner, refused
    ? visible(`dnscrub answers: ${failure.message}`)
    : `Connection lost, since ${clock(lostSince)}. What is shown is from then; it is tried again every second.`);
  show(banner, true);
  document.body.classList.add('stale');
}

function askForToken() {
  clearTimeout(timer);
  turn += 1;
  const wrong = hasToken();
  forgetToken();
  for (const id of ['overview', 'incident', 'forget', 'connection', 'level']) show(find(id), false);
  document.body.classList.remove('stale');
  setText(find('login-failure'), wrong ? 'This token is wrong.' : '');
  setText(find('updated'), '');
  show(find('login'), true);
  find('token').focus();
}

find('login-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = find('token').value.trim();
  find('token').value = '';
  if (!/^[!-~]+$/u.test(token)) {
    setText(find('login-failure'), 'This token is wrong.');
    return;
  }
  keepToken(token);
  rounds = 0;
  round();
});

find('forget').addEventListener('click', () => {
  forgetToken();
  forgetPoints();
  askForToken();
});

addEventListener('hashchange', () => {
  rounds = 0;
  round();
  find('content').focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.addEventListener('visibilitychange', () => {
  rounds = 0;
  if (!document.hidden && find('login').hidden) round();
});

prepareBlocklist(failed);
round();
