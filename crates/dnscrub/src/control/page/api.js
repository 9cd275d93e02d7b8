// Asks the program. The token, where one is wanted, is kept in this tab and sent as a header, never in an address.

const KEY = 'dnscrub-token';
// longer than an answer takes, shorter than anybody waits
const PATIENCE_MS = 5000;

/** The program wants a token, or another one. */
export class TokenWanted extends Error {}

/** The program answered that it does not do it. */
export class Refused extends Error {
  constructor(failure) {
    super(failure.hint ? `${failure.error}: ${failure.hint}` : failure.error);
    this.failure = failure;
  }
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const keepToken = (token) => sessionStorage.setItem(KEY, token);
export const forgetToken = () => sessionStorage.removeItem(KEY);

/** The answer to `GET path`, from JSON. Rejects with TypeError or TimeoutError when nobody answers. */
export async function get(path) {
  const token = sessionStorage.getItem(KEY);
  const headers = { Accept: 'application/json' };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, {
    headers,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (response.ok) return response.json();
  const failure = await response.json().catch(() => ({ error: `the answer is ${response.status}` }));
  if (response.status === 401) throw new TokenWanted(failure.error);
  throw new Refused(failure);
}
