// A recipe file as a plan. What a recipe may say and a plan cannot is refused, and not left out: what the page
// would predict without it would be another merge.
const RecipeReading = (() => {
  const LARGEST = 1 << 20; // characters, as the command line reads them
  const SHOWN = 60; // characters of a value that a message repeats
  const NUMBER = /^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*$/;
  const UNET_BLOCK = /^(IN|M|OUT)\d+$/;
  const DTYPES = ['keep', ...Object.keys(Survival.DTYPES)];
  // Options that a recipe may have and that the page does not show; null: there is no value that says nothing.
  const BEYOND = {
    base: null, model: null, param: null, presets: null, where: null, match: null, 'alpha-from': null, vae: null,
    'text-encoder': null, dtypes: null, alphas: null, 'position-ids': 'keep', 'only-in-b': 'drop', 'prune-ema': false,
  };
  const BELONGS_TO = { by: 'top', axis: 'top', per: 'budget' };
  const READERS = {
    format: expect('mergescope.recipe'),
    method: expect('weighted_sum', 'the page predicts weighted sums only'),
    version: (name, value) => { if (value !== 1) refuse(name, value, 'this page reads version 1'); },
    a: text,
    b: text,
    scan: text, // the page has its own
    only: (name, value) => ({ only: text(name, value).trim() }),
    alpha: (name, value) => ({ alpha: number(name, value) }),
    'base-alpha': (name, value) => ({ base_alpha: number(name, value) }),
    'block-weights': weights,
    top: (name, value) => ({ n: count(name, value) }),
    by: (name, value) => ({ by: text(name, value) }),
    axis: (name, value) => ({ axis: text(name, value) }),
    budget: (name, value) => ({ budget: number(name, value) }),
    per: (name, value) => ({ per: text(name, value) }),
    set: (name, value) => ({ sets: sets(name, value) }),
    dtype: (name, value) => ({ dtype: one(name, value, DTYPES) }),
  };

  /** The plan; throws a RecipeError with a sentence. */
  function read(data, source) {
    if (source.length > LARGEST) throw new Recipe.RecipeError('This is more text than a recipe has.');
    const given = fields(table(source), data);
    if (!Object.keys(given).length) return {};
    const { n, by, axis, numbers, sets: listed, dtype, ...plan } = given;
    if (n !== undefined) plan.top = { n, by: by ?? Guide.BY, axis: axis ?? Guide.AXIS };
    if (numbers) spread(data, plan, numbers);
    if (dtype && dtype !== 'keep') plan.dtype = dtype;
    if (listed?.length) plan.sets = listed;
    if (plan.per === Guide.AXIS) delete plan.per;
    const found = withSwitches(data, plan);
    const { problem } = Weights.alphas(data, found);
    if (problem !== null) throw new Recipe.RecipeError(problem);
    return found;
  }

  function table(source) {
    try {
      return Toml.parse(source);
    } catch (error) {
      if (!(error instanceof Toml.TomlError)) throw error;
      throw new Recipe.RecipeError(error.message);
    }
  }

  /** What the options say, by the plan's names; names may have dashes or underscores. */
  function fields(options, data) {
    const given = {};
    const seen = new Set();
    for (const [written, value] of options) {
      const name = written.replaceAll('_', '-');
      if (seen.has(name)) throw new Recipe.RecipeError(`“${name}” stands twice, with dashes and with underscores.`);
      seen.add(name);
      if (Object.hasOwn(BEYOND, name)) {
        if (BEYOND[name] === null || value !== BEYOND[name]) refuse(name, value, 'the page has no switch for it: use the command line');
      } else if (!Object.hasOwn(READERS, name)) {
        throw new Recipe.RecipeError(`“${shown(written)}” is no option of a merge.`);
      } else {
        const found = READERS[name](name, value, data);
        if (found instanceof Object) Object.assign(given, found);
      }
    }
    for (const [name, owner] of Object.entries(BELONGS_TO)) {
      if (seen.has(name) && !seen.has(owner)) throw new Recipe.RecipeError(`“${name}” says nothing without “${owner}”.`);
    }
    return given;
  }

  function refuse(name, value, why) {
    const text = value instanceof Map ? '{…}' : JSON.stringify(value, (_, its) => (its instanceof Map ? '{…}' : its));
    throw new Recipe.RecipeError(`“${name}” is ${shown(text ?? String(value))}: ${why}.`);
  }

  const shown = (text) => Format.shorten(text, SHOWN);

  function expect(wanted, why = `it must be “${wanted}”`) {
    return (name, value) => { if (value !== wanted) refuse(name, value, why); };
  }

  function text(name, value) {
    if (typeof value !== 'string' || !value.trim()) refuse(name, value, 'it must be a text that is not empty');
    return value;
  }

  function number(name, value) {
    if (typeof value !== 'number' || !Number.isFinite(value)) refuse(name, value, 'it must be a finite number');
    return value;
  }

  function count(name, value) {
    if (!Number.isInteger(value) || value < 1) refuse(name, value, 'it must be a whole number from 1 on');
    return value;
  }

  function one(name, value, choices) {
    if (!choices.includes(value)) refuse(name, value, `it must be one of ${choices.join(', ')}`);
    return value;
  }

  /** Numbers, as a list or as on the command line, or the name of a preset. */
  function weights(name, value, data) {
    if (Array.isArray(value) && value.length) return { numbers: value.map((item) => number(name, item)) };
    const words = text(name, value).split(',');
    if (words.length > 1 && words.every((word) => NUMBER.test(word))) return { numbers: words.map(Number) };
    try {
      return { preset: Weights.presetOf(data, value).name };
    } catch (error) {
      if (!(error instanceof Guide.GuideError)) throw error;
      return refuse(name, value, 'it is neither a list of numbers nor a preset that the page has');
    }
  }

  /** [selector, alpha] of texts such as "attn2=0.5", of which the last “=” divides, or of a table. */
  function sets(name, value) {
    const entries = value instanceof Map ? [...value] : [value].flat().map((entry) => {
      const at = typeof entry === 'string' ? entry.lastIndexOf('=') : -1;
      if (at < 0) refuse(name, value, 'it must be a list of texts such as "attn2=0.5"');
      return [entry.slice(0, at), entry.slice(at + 1)];
    });
    return entries.map(([selector, alpha]) => {
      const spelled = typeof alpha === 'string' && NUMBER.test(alpha) ? Number(alpha) : alpha;
      return [text(name, selector).trim(), number(name, spelled)];
    });
  }

  /** The numbers as weights of blocks: one for each, or one more, the first for what lies in none, or a curve. */
  function spread(data, plan, numbers) {
    const { blocks } = data.embedded;
    let own = numbers;
    if (blocks.length && numbers.length === blocks.length + 1) {
      own = numbers.slice(1);
      plan.base_alpha ??= numbers[0];
    }
    if (own.length !== blocks.length) {
      if (!blocks.length || blocks.every((block) => UNET_BLOCK.test(block))) {
        throw new Recipe.RecipeError(`“block-weights” has ${Format.plural(numbers.length, 'number')}, and this model ${Format.plural(blocks.length, 'block')}.`);
      }
      own = blocks.map((_, place) => onCurve(numbers, blocks.length > 1 ? place / (blocks.length - 1) : 0.5));
    }
    plan.weights = Object.fromEntries(blocks.map((block, place) => [block, own[place]]));
  }

  /** The value of a curve, straight between its points, at t in 0 … 1. */
  function onCurve(points, t) {
    const place = t * (points.length - 1);
    const before = Math.floor(place);
    const share = place - before;
    return share ? (1 - share) * points[before] + share * points[before + 1] : points[before];
  }

  /** The plan with switches in the place of selections that say the same. */
  function withSwitches(data, plan) {
    const { sets: listed = [], only, ...others } = plan;
    const written = { only: only ?? '', sets: listed };
    const { components, kept } = fromSets(data, listed);
    for (const rest of [fromNames(data, only ?? ''), fromExclusions(data, only ?? ''), { only }]) {
      const candidate = { ...others, ...rest, components: { ...rest.components, ...components } };
      candidate.sets = kept;
      if (isSame(data, candidate, written)) return tidy(candidate);
    }
    return tidy(plan);
  }

  /** Whether a plan's switches come to these selections; a selector's terms may stand in any order. */
  function isSame(data, plan, written) {
    const { only, sets: more } = Recipe.gate(data, plan);
    const sorted = (selector) => selector.split(',').sort().join();
    return sorted(only) === sorted(written.only) && JSON.stringify([...plan.sets, ...more]) === JSON.stringify(written.sets);
  }

  /** A plan without empty fields. */
  function tidy(plan) {
    const isKept = (value) => value !== undefined && !(value instanceof Object && !Object.keys(value).length);
    return Object.fromEntries(Object.entries(plan).filter(([, value]) => isKept(value)));
  }

  /** The components that sets at the end of the list switch off, and the sets before them. */
  function fromSets(data, listed) {
    const byText = new Map(data.axes.group.names.map((name) => [Selectors.ofGroup(data, 'group', name).join(), name]));
    let end = listed.length;
    const isSwitch = ([selector, alpha]) => alpha === 0 && selector.includes(',') && byText.has(selector);
    while (end && isSwitch(listed[end - 1])) end -= 1;
    const names = listed.slice(end).map(([selector]) => byText.get(selector));
    return { components: Object.fromEntries(names.map((name) => [name, false])), kept: listed.slice(0, end) };
  }

  /** The switches that exclusions at the end of a selector stand for, and the words before them. */
  function fromExclusions(data, only) {
    const words = only.split(',').filter(Boolean);
    const found = { parts: {}, components: {}, kinds: {} };
    while (words.length && words.at(-1).startsWith('!')) {
      const [field, name] = named(data, words.at(-1).slice(1)) ?? [];
      if (!field) break;
      found[field][name] = false;
      words.pop();
    }
    return { ...found, only: words.join() || undefined };
  }

  /** The switches that are off where a selector names those that are on. */
  function fromNames(data, only) {
    const found = { parts: {}, components: {}, kinds: {} };
    const on = only.split(',').map((word) => named(data, word.replace(/^!/, '')));
    const isOff = only.split(',').map((word) => word.startsWith('!'));
    for (const [field, axis] of Weights.SWITCHES) {
      const its = on.filter((entry, place) => entry?.[0] === field && !isOff[place]).map(([, name]) => name);
      const off = on.filter((entry, place) => entry?.[0] === field && isOff[place]).map(([, name]) => name);
      const { names, codes } = data.axes[axis];
      const isThere = new Set(Array.from(data.counted, (row) => names[codes[row]]));
      const others = its.length ? names.filter((name) => isThere.has(name) && !its.includes(name)) : off;
      found[field] = Object.fromEntries(others.map((name) => [name, false]));
    }
    return found;
  }

  /** The field and the name that a term such as "kind:bias" switches; undefined if it is none. */
  function named(data, term) {
    for (const [field, axis] of Weights.SWITCHES) {
      const prefix = axis === 'group' ? 'component:' : `${axis}:`;
      const name = term.slice(prefix.length);
      if (term.startsWith(prefix) && data.axes[axis].names.includes(name)) return [field, name];
    }
    return undefined;
  }

  return { read };
})();
