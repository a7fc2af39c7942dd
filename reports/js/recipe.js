// A plan as others read it: the command line, and the recipe file of `mergescope merge --recipe`, as
// analyzer/recipes/toml_text.py writes it. What the page predicts of a plan is what a merge makes of either.
const Recipe = (() => {
  const NOTHING = 'nothing chosen yet';
  const WIDTH = 100;
  const EXTENSION = /\.(safetensors|ckpt|pt|pth|bin|gguf)$/i;
  const ESCAPES = new Map([['"', '\\"'], ['\\', '\\\\'], ['\b', '\\b'], ['\t', '\\t'], ['\n', '\\n'], ['\f', '\\f'], ['\r', '\\r']]);

  /** A text that is no recipe, or one that no plan can hold; the message is fit to show. */
  class RecipeError extends Error {}

  /** The command line, as a POSIX shell reads it; a comment that says why where there is none. */
  function command(data, plan) {
    return attempt(data, plan, (options) => {
      const { a, b } = data.embedded.models;
      const words = options.flatMap(([name, value]) => {
        if (name === 'set') return value.map((entry) => argument(name, entry.join('=')));
        return [argument(name, Array.isArray(value) ? value.join() : String(value))];
      });
      const isUnsaved = options.some(([name]) => name === 'scan') && !data.embedded.planner?.scan;
      const merge = ['mergescope merge', path(a.path), path(b.path), '-o', quoted(output(data)), ...words].join(' ');
      return isUnsaved ? `${measure(data)} && ${merge}` : merge;
    });
  }

  /** The recipe as TOML; a comment that says why where there is none. */
  function toml(data, plan) {
    const { models: { a, b }, tool } = data.embedded;
    return `${attempt(data, plan, (options) => {
      const fields = [['format', 'mergescope.recipe'], ['version', 1], ['method', 'weighted_sum'], ...options];
      const lines = fields.map(([name, value]) => line(name, name === 'set' ? value.map((its) => its.join('=')) : value));
      return [...[tool, `A: ${a.name}`, `B: ${b.name}`].map((text) => `# ${oneLine(text)}`), '', ...lines].join('\n');
    })}\n`;
  }

  /** The plan of a recipe in TOML; throws an Error with a sentence for what the page has no plan for. */
  const read = (data, text) => RecipeReading.read(data, text);

  /** What a function makes of the plan's options; for a plan that has none, why. */
  function attempt(data, plan, write) {
    if (Weights.isEmpty(plan)) return `# ${NOTHING}`;
    try {
      const { problem } = Weights.alphas(data, plan);
      return problem === null ? write(optionsOf(data, plan)) : `# ${oneLine(problem)}`;
    } catch (error) {
      if (!(error instanceof RecipeError)) throw error;
      return `# ${oneLine(error.message)}`;
    }
  }

  /** The options that a plan comes to, as [name, value] in the order in which recipes have them. */
  function optionsOf(data, plan) {
    const { only, sets } = gate(data, plan);
    const { top } = plan;
    const isGiven = Object.keys(plan.weights ?? {}).length > 0;
    const weights = plan.preset && !isGiven ? Weights.presetOf(data, plan.preset).name : Weights.byBlock(data, plan);
    const isGuided = top || (plan.budget ?? null) !== null;
    return [
      ['only', only || undefined],
      ['alpha', plan.alpha],
      ['base-alpha', plan.base_alpha],
      ['block-weights', weights instanceof Map ? [...weights.values()] : weights],
      ['scan', isGuided ? data.embedded.planner?.scan ?? 'scan.json' : undefined],
      ['top', top?.n],
      ['by', (top?.by ?? Guide.BY) === Guide.BY ? undefined : top.by],
      ['axis', (top?.axis ?? Guide.AXIS) === Guide.AXIS ? undefined : top.axis],
      ['budget', plan.budget],
      ['per', (plan.per ?? Guide.AXIS) === Guide.AXIS ? undefined : plan.per],
      ['set', [...(plan.sets ?? []), ...sets]],
      ['dtype', (plan.dtype ?? 'keep') === 'keep' ? undefined : plan.dtype],
    ].filter(([name, value]) => value !== undefined && value !== null && !(name === 'set' && !value.length));
  }

  /**
   * What `only` and the switches come to: one selector, and sets for what it cannot say. A switch that is off is
   * an exclusion in the selector; where more are off than on, those that are on are named instead.
   */
  function gate(data, plan) {
    const words = plan.only?.trim() ? [plan.only.trim()] : [];
    const sets = [];
    for (const [field, axis] of Weights.SWITCHES) {
      const switched = Weights.off(plan, field, data.axes[axis].names);
      const counted = countedNames(data, axis);
      const on = counted.filter((name) => !switched.includes(name)).map((name) => termsOf(data, axis, name));
      const isShorter = !plan.only && on.length < counted.length - on.length && on.every(({ length }) => length === 1);
      if (on.length && isShorter) {
        words.push(...on.flat());
        continue;
      }
      for (const terms of switched.map((name) => termsOf(data, axis, name))) {
        if (terms.length === 1) words.push(`!${terms[0]}`);
        else sets.push([terms.join(), 0]);
      }
    }
    return { only: words.join(), sets };
  }

  /** The names on an axis that something counted has, in the scan's order. */
  function countedNames(data, axis) {
    return Guide.once(data, `names ${axis}`, () => {
      const { names, codes } = data.axes[axis];
      const isThere = new Uint8Array(names.length);
      for (const row of data.counted) isThere[codes[row]] = 1;
      return names.filter((_, code) => isThere[code]);
    });
  }

  /** The terms that hit this group and no other. */
  function termsOf(data, axis, name) {
    const terms = Guide.once(data, `terms ${axis} ${name}`, () => Selectors.ofGroup(data, axis, name));
    if (terms.includes(null)) throw new RecipeError(`“${name}” has no name that a selector can hold.`);
    return terms;
  }

  /** The scan that guides, where the page does not know of a file that holds it. */
  function measure({ embedded: { models: { a, b, base }, spectrum } }) {
    const words = ['mergescope scan', path(a.path), path(b.path)];
    if (base) words.push('--base', path(base.path));
    return [...words, '-o scan.json', ...(spectrum ? ['--spectrum'] : [])].join(' ');
  }

  /** The merged model's name: a file where A is one, else a folder; never that of A or B. */
  function output({ embedded: { models: { a, b } } }) {
    const extension = EXTENSION.test(a.path) ? '.safetensors' : '';
    const isTaken = [a, b].some(({ name }) => name === `merged${extension}`);
    return `merged${isTaken ? '-again' : ''}${extension}`;
  }

  const argument = (name, value) => (
    value.startsWith('-') ? quoted(`--${name}=${value}`) : `--${name} ${quoted(value)}`
  );

  const path = (text) => quoted(text.startsWith('-') ? `./${text}` : text);

  /** A word of a command line: as it stands where a shell leaves it alone, else in single quotes. */
  const quoted = (text) => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

  /** One option as TOML: a list that is too long takes several lines, numbers beside each other. */
  function line(name, value) {
    const text = `${name} = ${written(value)}`;
    if (text.length <= WIDTH || !Array.isArray(value)) return text;
    const rows = [];
    for (const item of value.map(written)) {
      const fits = rows.length && !item.startsWith('"') && rows.at(-1).length + item.length + 2 <= WIDTH;
      if (fits) rows[rows.length - 1] += ` ${item},`;
      else rows.push(`    ${item},`);
    }
    return [`${name} = [`, ...rows, ']'].join('\n');
  }

  /** A value as TOML; of a number the shortest text that reads back as the same. */
  function written(value) {
    if (Array.isArray(value)) return `[${value.map(written).join(', ')}]`;
    return typeof value === 'number' ? String(value) : `"${value.replace(/["\\\0-\x1f\x7f]/g, escaped)}"`;
  }

  const escaped = (sign) => ESCAPES.get(sign) ?? `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`;

  const oneLine = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '?');

  return { RecipeError, command, toml, read, gate };
})();
