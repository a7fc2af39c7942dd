// The selector language of the command line, as analyzer/selectors.py reads it; a browser test holds
// the two against each other. Terms of one axis unite, different axes intersect, `!` excludes.
const Selectors = (() => {
  const NAMED = ['part', 'block', 'component', 'kind'];
  const AXES = [...NAMED, 'key'];
  // Maps, since a reader's word may be one that every object has, such as “constructor”.
  const ALIASES = new Map([['clip', 'text_encoder'], ['u-net', 'unet']]);
  const WILDCARDS = new Map([['*', '[\\s\\S]*'], ['?', '[\\s\\S]']]);
  const SPECIAL = ['schedule', 'marker', 'training']; // components that are names of their own
  const NEAREST = 3;

  /** The request does not parse or names what is not there; the message is fit to show. */
  class SelectorError extends Error {}

  /**
   * A parsed selector: its terms, and `rows(ignored)`, the rows that it hits. With `ignored` axes,
   * the counted rows that its other terms hit: what a figure of those axes draws around a selection.
   */
  function compile(data, text) {
    const terms = split(text).map((word) => parse(data, word));
    if (!terms.length) throw new SelectorError('The selector is empty: name what to select, such as “attn2”.');
    const rows = (ignored = []) => {
      const asked = terms.filter(({ axis }) => !ignored.includes(axis));
      const isHit = predicate(asked);
      const isAsked = ignored.length ? () => false : naming(data, asked);
      return data.all.filter((row) => (data.isCounted[row] || isAsked(row)) && isHit(row));
    };
    return { terms, rows };
  }

  /** The rows that a selector hits; a selector that hits nothing is an error, as in a merge. */
  function select(data, text) {
    const rows = compile(data, text).rows();
    if (!rows.length) throw new SelectorError(`“${text}” hits no key: leave one of its terms out.`);
    return rows;
  }

  /** The term that names exactly this on its axis; null where the language has no words for it. */
  function term(axis, name) {
    if (axis !== 'key') return /[\s,]|^$|\.\./.test(name) ? null : `${axis}:${name}`;
    return `key:${name.replace(/[[*?]/g, '[$&]').replace(/[\s,]/g, '?')}`;
  }

  /**
   * The terms that hit a group of keys and no other: a component's name also hits where it stands
   * inside another path, and what lies there is excluded. Holds null where `term` has no words.
   */
  function ofGroup(data, axis, name) {
    if (axis !== 'group' && axis !== 'component') return [term(axis, name)];
    const first = term('component', name);
    if (first === null) return [first];
    const isMember = (row) => data.label(axis, row) === name;
    const strangers = compile(data, first).rows().filter((row) => !isMember(row));
    const isSafe = (path) => !compile(data, `component:${path}`).rows().some(isMember);
    const outside = [...new Set(Array.from(strangers, (row) => data.label('group', row)))].flatMap((group) => {
      if (isSafe(group)) return [group];
      const its = strangers.filter((row) => data.label('group', row) === group);
      return [...new Set(Array.from(its, (row) => data.label('component', row)))];
    });
    return [first, ...outside.sort().map((path) => `!component:${path}`)];
  }

  /** `text` with `added` in place of its terms on these axes; without them where they are those. */
  function withTerms(data, text, axes, added) {
    const terms = text ? compile(data, text).terms : [];
    const words = (isOn) => terms.filter(({ axis }) => axes.includes(axis) === isOn).map(({ word }) => word);
    const isToggled = words(true).join() === added.join();
    return [...words(false), ...(isToggled ? [] : added)].join(',');
  }

  const split = (text) => text.split(/[\s,]+/).filter(Boolean);

  /** One term: its word, its axis, whether it excludes, and `hits(row)`. */
  function parse(data, word) {
    const excludes = word.startsWith('!');
    const body = excludes ? word.slice(1) : word;
    const colon = body.indexOf(':');
    const [prefix, name] = colon < 0 ? ['', body] : [body.slice(0, colon).toLowerCase(), body.slice(colon + 1)];
    if (colon >= 0 && !AXES.includes(prefix)) {
      throw new SelectorError(`“${prefix}” is no axis: the axes are ${NAMED.join(', ')} and key.`);
    }
    if (!name) throw new SelectorError(`“${word}” names nothing: write the name right after it.`);
    if (prefix === 'key') return { word, excludes, axis: 'key', hits: glob(data, name) };
    if (name.includes('..')) return { word, excludes, axis: 'block', hits: range(data, prefix, name) };
    const axis = axisOf(data, prefix, name);
    return { word, excludes, axis, name: name.toLowerCase(), hits: hitsOf(data, axis, name) };
  }

  /** The axis of a name: the stated one, or the only one that knows it. */
  function axisOf(data, prefix, name) {
    const found = NAMED.filter((axis) => isKnown(data, axis, name));
    if (prefix) return found.includes(prefix) ? prefix : unknown(data, name, [prefix]);
    // Only the spelling `Other` is the part: in any other, `other` may as well be the kind.
    if (found.includes('part') && (name.toLowerCase() === 'vae' || name === 'Other')) return 'part';
    if (found.length > 1) {
      const forms = found.map((axis) => `${axis}:${name}`).join(' or ');
      throw new SelectorError(`“${name}” stands on several axes: write ${forms}.`);
    }
    return found[0] ?? unknown(data, name, NAMED);
  }

  function isKnown(data, axis, name) {
    const isNetwork = axis === 'block' && data.embedded.blocks.some(sameAs(name));
    return isNetwork || data.axes[axis].names.some(matcher(axis, name));
  }

  /** A test of an axis's labels for a name: a component has it as consecutive segments of its path. */
  function matcher(axis, name) {
    const wanted = name.toLowerCase();
    if (axis === 'component') return (label) => `/${label.toLowerCase()}/`.includes(`/${wanted}/`);
    return sameAs(axis === 'part' ? (ALIASES.get(wanted) ?? wanted) : wanted);
  }

  const sameAs = (name) => (label) => label.toLowerCase() === name.toLowerCase();

  /** A test of rows for a name on an axis. */
  function hitsOf({ axes }, axis, name) {
    const isHit = axes[axis].names.map(matcher(axis, name));
    return (row) => isHit[axes[axis].codes[row]];
  }

  /** A test of rows for an inclusive range of blocks in network order. */
  function range(data, prefix, text) {
    const { blocks } = data.embedded;
    if (prefix && prefix !== 'block') {
      throw new SelectorError(`“${text}” is a range, but only blocks have an order.`);
    }
    const ends = text.split('..');
    if (ends.length !== 2 || !ends.every(Boolean)) {
      throw new SelectorError(`“${text}” needs one block on either side of its dots: write FIRST..LAST.`);
    }
    const [first, last] = ends.map((end) => {
      const place = blocks.findIndex(sameAs(end));
      return place >= 0 ? place : unknown(data, end, ['block']);
    });
    if (first > last) {
      throw new SelectorError(`“${text}” runs against the network's order: write ${ends[1]}..${ends[0]}.`);
    }
    const chosen = new Set(blocks.slice(first, last + 1));
    const { names, codes } = data.axes.block;
    return (row) => chosen.has(names[codes[row]]);
  }

  /** A test of rows for a glob over the whole raw key, with regard to case: * ? [abc] [!abc]. */
  function glob(data, pattern) {
    const matches = expression(pattern);
    const isHit = data.all.map((row) => matches.test(data.key(row)));
    if (!isHit.includes(1)) {
      throw new SelectorError(`No key matches “${pattern}”, which must fit the whole key and its case.`);
    }
    return (row) => isHit[row];
  }

  function expression(pattern) {
    const source = pattern.replace(/\[(?:(!)|(?!!))(\][^\]]*|[^\]]+)\]|[\s\S]/gu, (sign, not, set) => {
      if (set !== undefined) return `[${not ? '^' : ''}${set.replace(/[\\^[\]]/g, '\\$&')}]`;
      return WILDCARDS.get(sign) ?? sign.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&');
    });
    try {
      return new RegExp(`^${source}$`, 'u');
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new SelectorError(`“${pattern}” holds a range that runs backwards.`);
    }
  }

  /** A test of rows for all terms: any of each axis that is chosen, and none that excludes. */
  function predicate(terms) {
    const excluded = terms.filter((term) => term.excludes);
    const ofAxis = (axis) => terms.filter((term) => !term.excludes && term.axis === axis);
    const chosen = AXES.map(ofAxis).filter(({ length }) => length);
    const fits = (any, row) => any.some(({ hits }) => hits(row));
    return (row) => chosen.every((any) => fits(any, row)) && !fits(excluded, row);
  }

  /** A test of uncounted rows that fit: were they asked for by name? */
  function naming(data, terms) {
    const wanted = terms.filter((term) => !term.excludes);
    const has = (...axes) => wanted.some(({ axis }) => axes.includes(axis));
    return (row) => {
      const part = data.label('part', row);
      if (part === 'ema') return has('part', 'key');
      if (has('kind', 'key') || (part === 'other' && has('part'))) return true;
      const path = data.label('component', row).toLowerCase();
      const own = data.key(row).split('.').at(-1).toLowerCase();
      // A mask or a scale has the component of its layer, and no name of its own.
      if (!SPECIAL.includes(path) && path.split('/').at(-1) !== own) return false;
      return wanted.some(({ axis, name }) => axis === 'component' && `/${path}`.endsWith(`/${name}`));
    };
  }

  function unknown(data, name, axes) {
    const labels = axes.flatMap((axis) => data.axes[axis].names);
    const known = [...new Set([...labels, ...labels.flatMap((label) => label.split('/'))])];
    const scored = known.map((label) => [similarity(label.toLowerCase(), name.toLowerCase()), label]);
    scored.sort(([x, a], [y, b]) => y - x || (a < b ? -1 : 1));
    const near = scored.slice(0, NEAREST).filter(([score]) => score > 0.2).map(([, label]) => label);
    const hint = near.length ? `: nearest are ${near.join(', ')}` : '';
    throw new SelectorError(`“${name}” names nothing here${hint}.`);
  }

  /** The share of neighbouring letters that two names have in common, in 0 … 1 (Dice, 1945). */
  function similarity(one, other) {
    const pairs = (word) => [...` ${word}`].map((letter, place) => letter + (word[place] ?? ' '));
    const [mine, theirs] = [pairs(one), pairs(other)];
    return (2 * mine.filter((pair) => theirs.includes(pair)).length) / (mine.length + theirs.length);
  }

  return { AXES, SelectorError, compile, select, term, ofGroup, withTerms };
})();
