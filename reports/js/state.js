// What a reader has chosen, as the fragment of the page's address: a copied address shows the same page.
// Knows names and texts, not what they mean; whoever owns a piece of the state registers it.
const State = (() => {
  const PAUSE = 250; // milliseconds; browsers refuse more than some hundred changes of an address a minute
  const READABLE = /%(2C|3A|2F|20|21|2A|7C|40|3B|24)/g; // signs of selectors that a fragment may hold as they are
  const pieces = new Map();
  let timer;
  let known = window.location.hash; // the fragment that the page last wrote or followed
  let turn = 0; // of following an address: a later one ends those before it

  /**
   * A piece of the state. `get()` is its text, '' where it stands at its default; `set(text)` takes such
   * a text, from wherever: what it cannot read it ignores.
   */
  function register(name, { get, set }) {
    pieces.set(name, { get, set });
  }

  /** To be called after a reader changed something: the address follows in a moment. */
  function changed() {
    clearTimeout(timer);
    timer = setTimeout(write, PAUSE);
  }

  function write() {
    if (window.location.hash !== known) return; // it has just been changed, and is to be followed
    const [address] = window.location.href.split('#');
    const fragment = encoded();
    try {
      window.history.replaceState(null, '', fragment ? `${address}#${fragment}` : address);
      known = window.location.hash;
    } catch (error) {
      if (error.name !== 'SecurityError') throw error; // a page inside another one has no address to change
    }
  }

  function encoded() {
    const texts = Array.from(pieces, ([name, { get }]) => [name, get()]).filter(([, text]) => text !== '');
    return texts.map(([name, text]) => `${encode(name)}=${encode(text)}`).join('&');
  }

  const encode = (text) => (
    encodeURIComponent(text.toWellFormed?.() ?? text).replace(READABLE, (code) => (code === '%20' ? '+' : decodeURIComponent(code)))
  );

  /** Put every piece where the address says, or at its default; what is broken in it is ignored. */
  async function restore() {
    clearTimeout(timer);
    turn += 1;
    const mine = turn;
    known = window.location.hash;
    const texts = decoded(known.slice(1));
    for (const [name, piece] of pieces) {
      if (mine !== turn) return;
      await restored(piece, texts.get(name) ?? '');
    }
  }

  /** Anybody can write an address: a piece that chokes on its text goes back to its default. */
  async function restored({ get, set }, text) {
    if (get() === text) return;
    try {
      await set(text);
    } catch {
      await set('');
    }
  }

  /** The names and texts of a fragment; a name by which the page has sections is none. */
  function decoded(fragment) {
    const texts = new Map();
    for (const pair of fragment.split('&')) {
      const place = pair.indexOf('=');
      try {
        if (place > 0) texts.set(decode(pair.slice(0, place)), decode(pair.slice(place + 1)));
      } catch (error) {
        if (!(error instanceof URIError)) throw error;
      }
    }
    return texts;
  }

  const decode = (text) => decodeURIComponent(text.replaceAll('+', ' '));

  window.addEventListener('hashchange', () => {
    if (decoded(window.location.hash.slice(1)).size || !window.location.hash) restore();
    else known = window.location.hash; // a link to a section
  });

  return { register, changed, restore };
})();
