// What the planned merge would be, in figures: where it lies between A and B, how much of the step the save
// keeps. Writes into places that the page holds; what it says is computed by ClosedForm and the sums below.
const PlannerOutcome = (() => {
  const NUMBER = { unit: '', range: '' };
  const SHARE = { unit: '', range: '0 … 1' };
  const COSINE = { unit: '', range: '−1 … 1' };
  const FORMS = { norm: NUMBER, distance_a: NUMBER, distance_b: NUMBER, cosine_a: COSINE, cosine_b: COSINE, survives: SHARE };

  /** Everything that the planner shows of some alphas by row. */
  function of(data, alphas, plan) {
    const outlook = ClosedForm.outlook(data, alphas, { dtype: plan.dtype });
    const step = stepOf(data, alphas);
    const groups = new Map(outlook.groups('group').map(({ name, prediction }) => [name, prediction]));
    for (const [name, prediction] of groups) {
      const energy = step.groups.get(name) ?? 0;
      groups.set(name, { ...prediction, share: step.energy ? energy / step.energy : null });
    }
    return { whole: outlook.whole, groups, step, warning: outlook.warning(), note: outlook.note };
  }

  /**
   * The step M − A by its squared lengths: in total, by block and by component; how far it goes along
   * B − A, and how far off that line, in lengths of B − A; and how many keys it touches.
   */
  function stepOf(data, alphas) {
    const { sum_dd } = data.sums;
    const [block, group] = [data.axes.block, data.axes.group];
    const [blocks, groups] = [block, group].map(({ names }) => new Float64Array(names.length));
    let [whole, along, energy, touched] = [0, 0, 0, 0];
    for (const row of data.all) {
      const alpha = alphas[row];
      if (alpha && data.isMergeable[row]) touched += 1;
      if (!data.isCounted[row] || !Number.isFinite(sum_dd[row])) continue;
      const its = alpha * alpha * sum_dd[row];
      whole += sum_dd[row];
      along += alpha * sum_dd[row];
      energy += its;
      blocks[block.codes[row]] += its;
      groups[group.codes[row]] += its;
    }
    const x = whole ? along / whole : 0;
    return {
      energy, touched,
      blocks: new Map(block.names.map((name, code) => [name, blocks[code]])),
      groups: new Map(group.names.map((name, code) => [name, groups[code]])),
      along: x, aside: whole ? Math.sqrt(Math.max(energy / whole - x * x, 0)) : 0,
    };
  }

  /** By name on an axis, the squared lengths of A and of B − A, over the keys that count. */
  function lengths(data, axis) {
    const { sum_aa, sum_dd } = data.sums;
    const { names, codes } = data.axes[axis];
    const found = names.map(() => ({ aa: 0, dd: 0, keys: 0 }));
    for (const row of data.counted) {
      const its = found[codes[row]];
      its.keys += 1;
      if (!Number.isFinite(sum_aa[row] + sum_dd[row])) continue;
      its.aa += sum_aa[row];
      its.dd += sum_dd[row];
    }
    return new Map(names.map((name, code) => [name, found[code]]).filter(([, { keys }]) => keys));
  }

  /** The length of a step as a share of A's norm; 0 where it is undefined, as a bar shows it. */
  const share = (squares, aa) => (aa > 0 ? Math.sqrt(squares / aa) : 0);

  /** Write an outcome into the page; null where there is none, as with a selector that does not parse. */
  function show(section, data, outcome) {
    const put = (name, text, title) => {
      const node = Dom.one(`[data-outcome="${name}"]`, section);
      node.textContent = text;
      node.title = title;
    };
    for (const [name, form] of Object.entries(FORMS)) {
      const value = outcome?.whole[name] ?? null;
      put(name, Format.statistic(value, form), Format.raw(value));
    }
    const touched = outcome?.step.touched ?? null;
    put('touched', touched === null ? Format.UNDEFINED : touched.toLocaleString('en'), `of ${Format.plural(data.size, 'key')} in both models`);
    // Sums beyond fp64 leave the merge no place in the drawing.
    const isPlaced = Boolean(outcome) && [outcome.step.along, outcome.step.aside].every(Number.isFinite);
    const drawing = Dom.one('.between', section);
    drawing.style.visibility = isPlaced ? '' : 'hidden';
    Dom.one('.between-text', section).textContent = isPlaced ? drawBetween(drawing, outcome.step) : '';
    survival(section, outcome);
  }

  /** The merge M between A and B, to scale: returns the words for the drawing. */
  function drawBetween(svg, { along, aside }) {
    const [left, right] = [Math.min(along, 0), Math.max(along, 1)];
    const scale = Math.min(296 / (right - left), 124 / Math.max(aside, 0.5));
    const x = (value) => 180 + scale * (value - (left + right) / 2);
    const [y, m] = [150, { x: x(along), y: 150 - scale * aside }];
    const set = (selector, attributes) => {
      const node = Dom.one(selector, svg);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    };
    set('.rim', { d: `M ${x(0)} ${y} A ${scale / 2} ${scale / 2} 0 0 1 ${x(1)} ${y}` });
    set('.way', { x1: x(0), y1: y, x2: x(1), y2: y });
    set('.to-a', { x1: x(0), y1: y, x2: m.x, y2: m.y });
    set('.to-b', { x1: x(1), y1: y, x2: m.x, y2: m.y });
    for (const [side, place] of [['a', 0], ['b', 1]]) {
      set(`.end-${side}`, { cx: x(place), cy: y });
      set(`.letter-${side}`, { x: x(place), y: y + 5 });
    }
    set('.merged', { cx: m.x, cy: m.y });
    const words = sentence(along, aside);
    svg.setAttribute('aria-label', `Map of where the merge lies between A and B. ${words}`);
    return words;
  }

  function sentence(along, aside) {
    const two = (value) => String(Number(value.toFixed(2))).replace('-', '−');
    if (along === 0 && aside === 0) return 'The merge is A.';
    if (along === 1 && aside === 0) return 'The merge is B.';
    const off = aside < 0.005
      ? 'on the straight line: every key goes the same way'
      : `${two(aside)} off the line; on the arc every key is either A’s or B’s`;
    return `${two(along)} of the way from A to B, ${off}.`;
  }

  /** How much of the step rounding leaves; where that is little, why and the way out. */
  function survival(section, outcome) {
    const { warning = null, note = '' } = outcome ?? {};
    Dom.one('.meter i', section).style.width = `${100 * (outcome?.whole.survives ?? 0)}%`;
    Dom.one('.survival', section).classList.toggle('is-low', warning !== null);
    const text = warning === null ? note : `${warning[0].toUpperCase()}${warning.slice(1)}.`;
    const place = Dom.one('.warning', section);
    if (place.textContent !== text) place.textContent = text; // read out again only when it changes
  }

  return { of, lengths, share, show };
})();
