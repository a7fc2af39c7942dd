// What the scan may choose for a merge, and what a selector says: budget, the groups that moved most, the gate
// over all, alphas of selections.
const PlannerGuide = (() => {
  const STEPS = 1000; // of the budget's slider; its right end is no budget

  /** Connect the section's controls; `change(plan, origin)` hears of them, `selection()` is the page's. */
  function create(section, data, { change, plan, selection }) {
    const field = (name) => Dom.one(`[name="${name}"]`, section);
    const shows = [
      budget(section, data, { change, plan }),
      top(field, data, { change, plan }),
      gate(field, { change, plan, selection }),
      sets(section, field, { change, plan }),
    ];
    return { show: (its) => shows.forEach((show) => show(its)) };
  }

  /** A slider that grows with the square, since small budgets differ most, and a number. */
  function budget(section, data, { change, plan }) {
    const changes = [...PlannerOutcome.lengths(data, 'group').values()].map(({ aa, dd }) => PlannerOutcome.share(dd, aa));
    const most = Math.max(0, ...changes) || 1; // 1 too where nothing counts, as of integers alone
    const slider = Dom.element('input', { type: 'range', min: 0, max: STEPS, step: 1, 'aria-label': 'budget: the most that a component may move, as a share of its norm' });
    const number = Dom.element('input', { type: 'number', min: 0, step: 0.005, placeholder: 'no limit', 'aria-label': 'budget as a number; empty for none' });
    const set = (value) => change(Plan.edit(plan(), { budget: value }), 'budget');
    slider.addEventListener('input', () => {
      const at = Number(slider.value);
      set(at >= STEPS ? undefined : Number((most * (at / STEPS) ** 2).toPrecision(3)));
    });
    number.addEventListener('input', () => set(number.valueAsNumber >= 0 ? number.valueAsNumber : undefined));
    Dom.one('[data-guide="budget"]', section).append(slider, number, Dom.element('span', { class: 'unit' }, 'of its norm'));
    return (its) => {
      const at = its.budget === undefined ? STEPS : Math.min(STEPS * Math.sqrt(its.budget / most), STEPS - 1);
      slider.value = at;
      slider.style.setProperty('--at', `${(100 * at) / STEPS}%`);
      slider.setAttribute('aria-valuetext', its.budget === undefined ? 'no limit' : `${its.budget} of its norm`);
      if (number !== document.activeElement) number.value = its.budget ?? '';
    };
  }

  function top(field, data, { change, plan }) {
    field('top-by').replaceChildren(...Array.from(data.statistics.keys(), (name) => (
      Dom.element('option', { value: name, title: data.statistics.get(name).meaning }, data.statistics.get(name).title)
    )));
    field('top-by').value = Guide.BY;
    const read = () => {
      const n = Math.floor(field('top-n').valueAsNumber);
      const isOn = field('top').checked && n >= 1;
      const its = { n, by: field('top-by').value, axis: field('top-axis').value };
      change(Plan.edit(plan(), { top: isOn ? its : undefined }), 'top');
    };
    for (const name of ['top', 'top-by', 'top-axis']) field(name).addEventListener('change', read);
    field('top-n').addEventListener('input', () => {
      if (field('top-n').valueAsNumber >= 1) read();
    });
    return (its) => {
      field('top').checked = Boolean(its.top);
      if (!its.top) return;
      field('top-by').value = its.top.by ?? Guide.BY;
      field('top-axis').value = its.top.axis ?? Guide.AXIS;
      if (field('top-n') !== document.activeElement) field('top-n').value = its.top.n;
    };
  }

  function gate(field, { change, plan, selection }) {
    const only = field('only');
    const set = (text) => change(Plan.edit(plan(), { only: text.trim() || undefined }), 'only');
    only.addEventListener('change', () => set(only.value));
    field('use-selection').addEventListener('click', () => set(selection()));
    return (its) => { only.value = its.only ?? ''; };
  }

  function sets(section, field, { change, plan }) {
    const list = Dom.one('.sets', section);
    field('set').addEventListener('click', () => {
      const [selector, alpha] = [field('set-selector').value.trim(), field('set-alpha').valueAsNumber];
      if (!selector || !Number.isFinite(alpha)) return;
      change(Plan.edit(plan(), { sets: [...(plan().sets ?? []), [selector, alpha]] }), 'set');
      field('set-selector').value = '';
    });
    const item = ([selector, alpha], place) => {
      const button = Dom.element('button', { type: 'button', 'aria-label': `remove the alpha of ${selector}` }, 'Remove');
      button.addEventListener('click', () => change(Plan.edit(plan(), { sets: plan().sets.filter((_, at) => at !== place) }), 'set'));
      return Dom.element('li', {}, Dom.element('code', {}, `${selector} = ${alpha}`), button);
    };
    return (its) => list.replaceChildren(...(its.sets ?? []).map(item));
  }

  return { create };
})();
