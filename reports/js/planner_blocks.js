// The planner's sliders: one a block in network order, as a U where the network is one, and those of
// everything and of what lies outside all blocks. Each says what it would do.
const PlannerBlocks = (() => {
  const MANY = 32; // blocks from which on a curve to draw stands above the sliders
  const MOST = 240; // sliders of a page; with more blocks each is that of a few neighbours
  const SIDES = /^(IN|M|OUT)\d+$/;

  /** A slider with its number; `set(alpha)` hears of either. `show(alpha, text)` moves both. */
  function alphaSlider(title, set) {
    const slider = Dom.element('input', { type: 'range', min: 0, max: 1, step: 0.01, 'aria-label': `alpha of ${title}` });
    const number = Dom.element('input', {
      type: 'number', min: -1, max: 2, step: 0.05, 'aria-label': `alpha of ${title}, as a number`,
    });
    slider.addEventListener('input', () => set(Number(slider.value)));
    number.addEventListener('input', () => {
      if (Number.isFinite(number.valueAsNumber)) set(number.valueAsNumber);
    });
    let shown = 0;
    number.addEventListener('blur', () => { number.value = rounded(shown); }); // an emptied field says nothing
    return {
      nodes: [slider, number],
      show(alpha, text) {
        shown = alpha;
        slider.value = alpha;
        slider.style.setProperty('--at', `${100 * Math.min(Math.max(alpha, 0), 1)}%`);
        slider.setAttribute('aria-valuetext', text);
        // What a reader types stays as it is typed.
        if (number !== document.activeElement || number.valueAsNumber !== alpha) number.value = rounded(alpha);
        number.title = alpha;
      },
      enable(isOn) {
        slider.disabled = !isOn;
        number.disabled = !isOn;
      },
    };
  }

  const rounded = (alpha) => Number(alpha.toFixed(3));

  /** A bar with two lengths in 0 … 1: how far B lies from A, and how far the merge moves. */
  function bar() {
    const [whole, taken] = [Dom.element('i', { class: 'whole' }), Dom.element('i', { class: 'taken' })];
    return {
      node: Dom.element('span', { class: 'moves' }, whole, taken),
      show(change, moved) {
        whole.style.width = `${100 * Math.min(change, 1)}%`;
        taken.style.width = `${100 * Math.min(moved, 1)}%`;
      },
    };
  }

  /** Fill the section with the sliders of all blocks; `change(plan)` hears of them, `choose(text)` of their names. */
  function create(section, data, { change, plan, choose }) {
    const place = Dom.one('.blocks', section);
    const { blocks } = data.embedded;
    const masters = masterSliders(section, data, { change, plan });
    place.hidden = !blocks.length;
    if (!blocks.length) return masters;
    const set = (weights) => change(Plan.withWeights(data, plan(), weights));
    const runs = runsOf(data, blocks);
    const most = Math.max(...runs.map((run) => run.change)) || 1;
    const rows = runs.map((run) => row(run, { most, set, choose }));
    const list = Dom.one('.block-rows', place);
    const isU = runs.every(({ title }) => SIDES.test(title));
    list.classList.add(isU ? 'u' : 'layers');
    if (isU) layOut(blocks, rows, list);
    else list.style.setProperty('--rows', Math.ceil(runs.length / 2)); // two columns, down each of them
    list.replaceChildren(...rows.map(({ node }) => node));
    const curve = runs.length > MANY ? PlannerCurve.create(Dom.one('.curve', place), runs, { most, set }) : null;
    ramp(place, runs, set);

    function show(its, outcome) {
      const weights = Plan.weights(data, its);
      const alphas = runs.map((run) => run.blocks.reduce((sum, block) => sum + weights[block], 0) / run.blocks.length);
      const isOverruled = its.budget !== undefined;
      Dom.one('.overruled', place).hidden = !isOverruled;
      place.classList.toggle('is-overruled', isOverruled);
      rows.forEach((each, at) => {
        each.show(alphas[at], outcome?.step);
        each.enable(!isOverruled && runs[at].aa !== null);
      });
      curve?.show(alphas);
      masters.show(its);
    }

    return { show };
  }

  /**
   * The blocks in network order, a few together where there are more than a page can hold sliders. Each
   * run: its title, its selector, and how far B lies from A in it as a share of A's norm.
   */
  function runsOf(data, blocks) {
    const size = Math.ceil(blocks.length / MOST);
    const lengths = PlannerOutcome.lengths(data, 'block');
    return Array.from({ length: Math.ceil(blocks.length / size) }, (_, at) => {
      const its = blocks.slice(at * size, (at + 1) * size);
      const [first, last] = [its[0], its.at(-1)];
      const title = its.length === 1 ? first : `${first}..${last}`;
      const isNamed = [first, last].every((block) => Selectors.term('block', block) !== null);
      const held = its.map((block) => lengths.get(block)).filter(Boolean);
      const total = (name) => held.reduce((sum, each) => sum + each[name], 0);
      const aa = held.length ? total('aa') : null; // null: no key lies there
      return { blocks: its, title, term: isNamed ? `block:${title}` : null, aa, change: PlannerOutcome.share(total('dd'), aa ?? 0) };
    });
  }

  /** One run of blocks, as nearly always of one: name, slider, number, bar, and its share of the whole step. */
  function row({ blocks, title, term, aa, change }, { most, set, choose }) {
    const slider = alphaSlider(title, (alpha) => set(Object.fromEntries(blocks.map((block) => [block, alpha]))));
    const its = bar();
    const share = Dom.element('span', { class: 'share', title: 'of the squared length of the whole step from A, Σ(alpha · d)²' });
    const name = Dom.element('button', { type: 'button', class: 'name', title: `Select the keys of ${title} in the page` }, title);
    name.disabled = aa === null || term === null;
    name.addEventListener('click', () => choose(term));
    const node = Dom.element('div', { class: 'block-row', 'data-block': title }, name, ...slider.nodes, its.node, share);
    if (aa === null) node.title = 'No key that counts lies in this block.';
    return {
      node,
      enable: slider.enable,
      show(alpha, step) {
        const energy = blocks.reduce((sum, block) => sum + (step?.blocks.get(block) ?? 0), 0);
        const moved = PlannerOutcome.share(energy, aa ?? 0);
        const part = step?.energy ? energy / step.energy : 0;
        its.show(change / most, moved / most);
        share.textContent = aa === null ? '' : Format.statistic(part, SHARE);
        const text = `moves ${title} by ${Format.statistic(moved, NUMBER)} of its norm, `
          + `${Format.statistic(part, SHARE)} of the whole step`;
        its.node.title = `B differs from A by ${Format.statistic(change, NUMBER)} of the norm of ${title}; this merge ${text}.`;
        slider.show(alpha, `${rounded(alpha)}: ${text}`);
      },
    };
  }

  const NUMBER = { unit: '', range: '' };
  const SHARE = { unit: '', range: '0 … 1' };

  /** IN down the left side, M at the bottom, OUT up the right side: blocks of one resolution face each other. */
  function layOut(blocks, rows, list) {
    const side = (name) => blocks.filter((block) => block.startsWith(name));
    const [down, bottom, up] = [side('IN'), side('M'), side('OUT')];
    const height = Math.max(down.length, up.length);
    list.style.setProperty('--rows', height + bottom.length);
    blocks.forEach((block, at) => {
      const { style } = rows[at].node;
      const [its] = SIDES.exec(block).slice(1);
      const line = { IN: down.indexOf(block), M: height + bottom.indexOf(block), OUT: up.length - 1 - up.indexOf(block) }[its];
      style.setProperty('--line', line + 1);
      rows[at].node.classList.add(its.toLowerCase());
    });
  }

  function masterSliders(section, data, { change, plan }) {
    const all = alphaSlider('everything', (alpha) => change(Plan.edit(plan(), {
      alpha, weights: undefined, preset: undefined, base_alpha: undefined, budget: undefined,
    }), 'alpha'));
    const base = alphaSlider('keys outside all blocks', (alpha) => change(Plan.edit(plan(), { base_alpha: alpha }), 'base'));
    Dom.one('[data-master="alpha"]', section).append(...all.nodes);
    Dom.one('[data-master="base"]', section).append(...base.nodes);
    const inBlocks = new Set(data.embedded.blocks);
    const hasOutside = data.counted.some((row) => !inBlocks.has(data.label('block', row)));
    Dom.one('[data-master="base"]', section).hidden = !data.embedded.blocks.length || !hasOutside;
    return {
      show(its) {
        const alpha = Plan.everywhere(its);
        all.show(alpha, `${rounded(alpha)}${its.weights || its.preset ? ', where no block says otherwise' : ''}`);
        base.show(Plan.base(its), `${rounded(Plan.base(its))}`);
        base.enable(its.budget === undefined);
      },
    };
  }

  /** Two blocks and an alpha at each: all between them get the straight line. */
  function ramp(place, runs, set) {
    const field = (name) => Dom.one(`[name="ramp-${name}"]`, place);
    const blocks = runs.flatMap((run) => run.blocks);
    const option = (block) => Dom.element('option', { value: block }, block);
    field('first').replaceChildren(...runs.map((run) => option(run.blocks[0])));
    field('last').replaceChildren(...runs.map((run) => option(run.blocks.at(-1))));
    field('last').value = blocks.at(-1);
    Dom.one('[name="ramp"]', place).addEventListener('click', () => {
      const [first, last] = ['first', 'last'].map((name) => blocks.indexOf(field(name).value));
      const [start, end] = ['start', 'end'].map((name) => field(name).valueAsNumber);
      if ([start, end].every(Number.isFinite)) set(PlannerCurve.line(blocks, [first, start], [last, end]));
    });
  }

  return { alphaSlider, bar, create };
})();
