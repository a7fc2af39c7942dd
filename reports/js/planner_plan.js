// A plan as the planner keeps it: its defaults, what its sliders stand at, and its short text for addresses.
const Plan = (() => {
  const DEFAULT = Object.freeze({ alpha: 0.5 });
  const SWITCHES = [['off', 'components', 'group'], ['kinds', 'kinds', 'kind'], ['parts', 'parts', 'part']];
  const DTYPES = ['fp32', 'fp16', 'bf16', 'fp8_e4m3', 'fp8_e5m2'];
  const AXES = /^(part|block|component|kind)(\*(?!\1)(part|block|component|kind))?$/; // one, or two that are crossed
  const FARTHEST = 1e6; // no alpha beyond is meant

  /** A plan with some of its fields replaced; what is undefined, or an empty table or list, leaves it. */
  function edit(plan, changes) {
    const isEmpty = (value) => value === undefined || value === '' || (typeof value === 'object' && !Object.keys(value).length);
    return Object.fromEntries(Object.entries({ ...plan, ...changes }).filter(([, value]) => !isEmpty(value)));
  }

  const everywhere = (plan) => plan.alpha ?? 1;

  /** By block, what its slider stands at: its own weight, its preset's, or the alpha of everything. */
  function weights(data, plan) {
    const { blocks, planner } = data.embedded;
    const preset = planner?.presets.find(({ name }) => name === plan.preset);
    return Object.fromEntries(blocks.map((block, place) => (
      [block, plan.weights?.[block] ?? preset?.weights[place] ?? everywhere(plan)]
    )));
  }

  /** What lies in no block: as a merge has it, 0 where weights of blocks are given. */
  function base(plan) {
    return plan.base_alpha ?? (plan.weights || plan.preset ? 0 : everywhere(plan));
  }

  /** The plan with other weights of some blocks; what a preset or the alpha of everything said stays. */
  function withWeights(data, plan, changes) {
    return edit(plan, { weights: { ...weights(data, plan), ...changes }, preset: undefined, base_alpha: base(plan) });
  }

  /** The plan with something switched on or off: `field` is components, kinds or parts. */
  function withSwitch(plan, field, name, isOn) {
    const { [name]: _, ...others } = plan[field] ?? {};
    return edit(plan, { [field]: isOn ? others : { ...others, [name]: false } });
  }

  /** The text that stands for a plan in the page's address; '' for the default one. */
  function write(data, plan) {
    const list = (values) => values.map(escaped).join(',');
    const fields = {
      alpha: plan.alpha === DEFAULT.alpha ? undefined : plan.alpha ?? '',
      blocks: plan.weights && runs(data.embedded.blocks.map((block) => plan.weights[block] ?? '')),
      preset: plan.preset && list([plan.preset]),
      base: plan.base_alpha,
      only: plan.only && list([plan.only]),
      set: plan.sets && list(plan.sets.flat()),
      budget: plan.budget,
      per: plan.per,
      top: plan.top && list([plan.top.n, plan.top.by ?? Guide.BY, plan.top.axis ?? Guide.AXIS]),
      dtype: plan.dtype,
    };
    for (const [name, field] of SWITCHES) {
      const off = Object.keys(plan[field] ?? {}).filter((its) => plan[field][its] === false);
      fields[name] = off.length ? list(off) : undefined;
    }
    const written = Object.entries(fields).filter(([, value]) => value !== undefined);
    return written.map(([name, value]) => `${name}:${value}`).join(';');
  }

  /** The plan of such a text. What a text of another model, or a broken one, says of nothing here is left out. */
  function read(data, text) {
    const fields = Object.fromEntries(text.split(';').map((field) => {
      const end = `${field}:`.indexOf(':');
      return [field.slice(0, end), field.slice(end + 1).split(',').map(unescaped)];
    }));
    const [alpha, base_alpha, budget] = ['alpha', 'base', 'budget'].map((name) => number(fields[name]?.[0]));
    const isKnown = (axis) => (name) => data.axes[axis].names.includes(name);
    const switches = SWITCHES.map(([name, field, axis]) => (
      [field, Object.fromEntries((fields[name] ?? []).filter(isKnown(axis)).map((its) => [its, false]))]
    ));
    const preset = data.embedded.planner?.presets.find(({ name }) => name === fields.preset?.[0])?.name;
    return edit({}, {
      alpha: fields.alpha ? alpha : DEFAULT.alpha,
      weights: preset ? undefined : listed(data, spread(fields.blocks ?? [], data.embedded.blocks.length)),
      preset,
      base_alpha,
      only: fields.only?.[0],
      sets: pairs(fields.set ?? []),
      budget: budget >= 0 ? budget : undefined,
      per: AXES.test(fields.per?.[0]) ? fields.per[0] : undefined,
      top: ranked(data, fields.top ?? []),
      dtype: DTYPES.find((name) => name === fields.dtype?.[0]),
      ...Object.fromEntries(switches),
    });
  }

  /** Values one after the other, repeated ones as "0.5x12". */
  function runs(values) {
    const found = [];
    for (const value of values) {
      if (found.at(-1)?.value === value) found.at(-1).count += 1;
      else found.push({ value, count: 1 });
    }
    return found.map(({ value, count }) => (count > 1 ? `${value}x${count}` : String(value))).join(',');
  }

  /** The values of such a text, at most `most` of them. */
  function spread(texts, most) {
    const values = [];
    for (const text of texts) {
      const [value, count = '1'] = text.split('x');
      const times = Math.min(Number(count) || 0, most - values.length);
      for (let time = 0; time < times; time += 1) values.push(value);
    }
    return values;
  }

  // The signs that part fields and values; a percent sign would be escaped once more by the address.
  const escaped = (value) => String(value).replace(/[~,;]/g, (sign) => `~${sign.charCodeAt(0).toString(16)}`);
  const unescaped = (text) => text.replace(/~(7e|2c|3b)/g, (_, code) => String.fromCharCode(parseInt(code, 16)));

  /** A number as it stands in a text; undefined where it is none, or out of all proportion. */
  function number(text) {
    const value = text ? Number(text) : NaN;
    return Math.abs(value) <= FARTHEST ? value : undefined;
  }

  function listed(data, numbers) {
    const found = numbers.map((text, place) => [data.embedded.blocks[place], number(text)]);
    return Object.fromEntries(found.filter(([, value]) => value !== undefined));
  }

  function pairs(texts) {
    const places = Array.from({ length: texts.length >> 1 }, (_, place) => 2 * place);
    return places.map((place) => [texts[place], number(texts[place + 1])])
      .filter(([selector, alpha]) => selector && alpha !== undefined);
  }

  function ranked(data, [count, by, axis]) {
    const isSound = number(count) >= 1 && data.statistics.has(by) && AXES.test(axis);
    return isSound ? { n: Math.floor(number(count)), by, axis } : undefined;
  }

  return { DEFAULT, edit, weights, base, everywhere, withWeights, withSwitch, write, read };
})();
