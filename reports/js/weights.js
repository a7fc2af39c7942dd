// From a plan to the alpha of every key, in the order of analyzer/planning/alphas.py: `alpha`, then `base_alpha`
// and the weights of blocks, then what the scan says (`top`, `budget`), then `sets`, each replacing what came
// before; `only` and the switches are the gate over all of them.
//
// A plan is a plain object of which every field may be left out:
//   alpha        of every key that nothing else says otherwise of; 1 if it is left out
//   weights      { block: alpha }; a block that is not in it has its preset's, or without one `alpha`
//   preset       the name of a preset of block weights
//   base_alpha   of what lies in no block; without it 0 where there are weights or a preset, else `alpha`
//   top          { n, by, axis }: alpha 0 outside the n groups that differ most
//   budget       the most that a group may move, as a share of its norm; `per` is the groups' axis: component
//   sets         [[selector, alpha], …], the later wins
//   only         a selector: alpha 0 outside of it
//   components, kinds, parts   { name: false }: switched off, alpha 0; groups by their whole name
//   dtype        of the output, as on the command line
const Weights = (() => {
  const SWITCHES = [['parts', 'part'], ['components', 'group'], ['kinds', 'kind']];
  const NOTHING = 'Nothing is left to merge: switch something on, or leave a term of the selector out.';

  /**
   * The alphas by row (a Float64Array), and the `problem` of a plan that cannot be merged, in a sentence: its
   * alphas are null. Of an empty plan all are 0: the merge is A.
   */
  function alphas(data, plan) {
    try {
      const found = isEmpty(plan) ? new Float64Array(data.size) : resolve(data, plan);
      return { alphas: found, problem: null };
    } catch (error) {
      if (!(error instanceof Selectors.SelectorError || error instanceof Guide.GuideError)) throw error;
      return { alphas: null, problem: error.message };
    }
  }

  /** Whether a plan says nothing of what to take from B. */
  function isEmpty(plan) {
    const { alpha, only, preset, top, budget } = plan;
    const isSaid = [alpha, only || undefined, preset, top, budget].some((value) => value !== undefined && value !== null);
    return !isSaid && !entries(plan.weights).length && !plan.sets?.length && SWITCHES.every(([field]) => !off(plan, field).length);
  }

  const entries = (table) => Object.entries(table ?? {});

  /** The names that a field of switches switches off, in the scan's order where `among` gives it. */
  function off(plan, field, among = Object.keys(plan[field] ?? {})) {
    return among.filter((name) => plan[field]?.[name] === false);
  }

  function resolve(data, plan) {
    const found = plain(data, plan);
    guide(data, plan, found);
    const isSaid = set(data, plan, found);
    shut(data, plan, found, isSaid);
    for (const row of data.all) if (!data.isMergeable[row]) found[row] = 0;
    return found;
  }

  /** `alpha`, then `base_alpha` and the weights of blocks. */
  function plain(data, plan) {
    const everywhere = finite(plan.alpha ?? 1);
    const weights = byBlock(data, plan);
    const base = finite(plan.base_alpha ?? (weights ? 0 : everywhere));
    const { names, codes } = data.axes.block;
    const isBlock = new Set(data.embedded.blocks);
    const ofLabel = Float64Array.from(names, (name) => {
      if (!isBlock.has(name)) return base;
      return weights ? weights.get(name) : everywhere;
    });
    return Float64Array.from(codes, (code) => ofLabel[code]);
  }

  /** The weight of every block; null where a plan gives none. */
  function byBlock(data, plan) {
    const { blocks } = data.embedded;
    const isGiven = entries(plan.weights).length > 0;
    if (!isGiven && !plan.preset) return null;
    if (!blocks.length) throw new Guide.GuideError('This model has no numbered blocks: use components and parts.');
    const known = new Set(blocks);
    const stranger = Object.keys(plan.weights ?? {}).find((name) => !known.has(name));
    if (stranger !== undefined) throw new Guide.GuideError(`“${stranger}” is no block of this model.`);
    const preset = plan.preset ? presetOf(data, plan.preset) : null;
    const weight = (block, place) => plan.weights?.[block] ?? preset?.weights[place] ?? plan.alpha ?? 1;
    return new Map(blocks.map((block, place) => [block, finite(weight(block, place))]));
  }

  /** The preset of that name, whatever its case and whether with - or _. */
  function presetOf(data, name) {
    const fold = (text) => text.trim().toLowerCase().replaceAll('-', '_');
    const found = (data.embedded.planner?.presets ?? []).find((preset) => fold(preset.name) === fold(name));
    if (!found) throw new Guide.GuideError(`“${name}” is no preset that the page has.`);
    return found;
  }

  function finite(alpha) {
    if (typeof alpha !== 'number' || !Number.isFinite(alpha)) throw new Guide.GuideError(`An alpha is ${alpha}: write a number such as 0.5.`);
    return alpha;
  }

  /** What the scan says, in the place of what stands there. */
  function guide(data, { top, budget, per }, found) {
    const isChosen = top ? Guide.top(data, top) : null;
    const limited = (budget ?? null) === null ? null : Guide.budget(data, budget, { per, isChosen });
    if (!isChosen && !limited) return;
    for (const row of data.all) {
      if (isChosen && !isChosen[row]) found[row] = 0;
      else if (limited) found[row] = limited[row];
    }
  }

  /** The sets, the later over the earlier; which rows any of them speaks of. */
  function set(data, { sets = [] }, found) {
    const isSaid = new Uint8Array(data.size);
    for (const [selector, alpha] of sets) {
      finite(alpha);
      for (const row of rowsOf(data, selector)) {
        found[row] = alpha;
        isSaid[row] = 1;
      }
    }
    return isSaid;
  }

  /** Alpha 0 for what `only` or a switch shuts out, and for copies that nobody named. */
  function shut(data, plan, found, isSaid) {
    const isOpen = new Uint8Array(data.size).fill(1);
    if (plan.only) {
      isOpen.fill(0);
      for (const row of rowsOf(data, plan.only)) isOpen[row] = 1;
    }
    for (const [field, axis] of SWITCHES) {
      const { names, codes } = data.axes[axis];
      const isOff = names.map((name) => plan[field]?.[name] === false);
      if (isOff.includes(true)) for (const row of data.all) if (isOff[codes[row]]) isOpen[row] = 0;
    }
    for (const row of data.all) {
      const isNamed = plan.only || isSaid[row] || data.isCounted[row];
      if (!isOpen[row] || !isNamed) found[row] = 0;
    }
    if (!data.all.some((row) => isOpen[row] && data.isMergeable[row])) throw new Guide.GuideError(NOTHING);
  }

  /** The rows that a selector means: copies (EMA) only where it names their part. */
  function rowsOf(data, text) {
    const found = Guide.once(data, `selector ${text}`, () => {
      const { terms, rows } = Selectors.compile(data, text);
      const namesPart = terms.some(({ axis, excludes }) => axis === 'part' && !excludes);
      return rows().filter((row) => namesPart || data.label('part', row) !== 'ema');
    });
    if (!found.length) throw new Selectors.SelectorError(`“${text}” hits no key that can be merged: leave one of its terms out.`);
    return found;
  }

  return { SWITCHES, alphas, byBlock, isEmpty, off, presetOf };
})();
