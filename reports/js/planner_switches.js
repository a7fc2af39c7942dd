// What a merge leaves out: a switch for every component, kind and part, with what each of them moves.
const PlannerSwitches = (() => {
  const NUMBER = { unit: '', range: '' };
  const SHARE = { unit: '', range: '0 … 1' };
  const COSINE = { unit: '', range: '−1 … 1' };
  const FIGURES = [
    ['distance_a', 'moves', 'How far the merge lies from A in this component: ‖M − A‖ / ‖A‖.', NUMBER],
    ['cosine_a', 'cosine', 'The cosine between the merge and A in this component.', COSINE],
    ['survives', 'survives', 'The share of the step’s energy that the output’s dtype does not round away.', SHARE],
    ['share', 'of the step', 'The share that this component has in the squared length of the whole step, Σ(alpha · d)².', SHARE],
  ];
  const LABELS = [['kinds', 'kind', 'kinds'], ['parts', 'part', 'parts']];

  /** Fill the section's table and lists; `change(plan)` hears of the switches, `choose(text)` of names. */
  function create(section, data, { change, plan, choose }) {
    const turn = (field, name) => (isOn) => change(Plan.withSwitch(plan(), field, name, isOn));
    const groups = [...PlannerOutcome.lengths(data, 'group')]
      .map(([name, { aa, dd }]) => ({ name, change: PlannerOutcome.share(dd, aa) }))
      .sort((one, other) => other.change - one.change || (one.name < other.name ? -1 : 1));
    const titles = View.shortNames(groups.map(({ name }) => name));
    const most = Math.max(...groups.map((group) => group.change)) || 1;
    const rows = groups.map((group) => (
      row(data, group, { title: titles.get(group.name), most, turn: turn('components', group.name), choose })
    ));
    const head = Dom.element('tr', {}, Dom.element('th', { scope: 'col' }, 'component'), Dom.element('th', { scope: 'col', class: 'bars' }, Dom.element('span', { class: 'unseen' }, 'how far it moves')), ...FIGURES.map(title));
    Dom.one('.component-table', section).replaceChildren(Dom.element('table', {}, Dom.element('thead', {}, head), Dom.element('tbody', {}, ...rows.map(({ node }) => node))));
    Dom.one('.components .bars-legend', section).textContent = `${Format.plural(groups.length, 'component')}, what differs most first; switch off what shall stay A’s`;
    const chips = LABELS.flatMap(([field, axis, heading]) => labels(section, data, { field, axis, heading, turn }));
    return {
      show(its, outcome) {
        for (const each of rows) each.show(its.components?.[each.name] !== false, outcome?.groups.get(each.name));
        for (const { field, name, box } of chips) box.checked = its[field]?.[name] !== false;
      },
    };
  }

  const title = ([name, text, meaning]) => (
    Dom.element('th', { scope: 'col', class: 'number', 'data-figure': name }, Dom.element('abbr', { title: meaning }, text))
  );

  function checkbox(label, turn) {
    const box = Dom.element('input', { type: 'checkbox', 'aria-label': label });
    box.addEventListener('change', () => turn(box.checked));
    return box;
  }

  /** One component: its switch, its name, its bar and its figures. */
  function row(data, group, { title: text, most, turn, choose }) {
    const box = checkbox(`merge ${text}`, turn);
    const name = Dom.element('button', { type: 'button', class: 'name', title: `Select the keys of ${group.name} in the page` }, Format.shorten(text, 40));
    name.addEventListener('click', () => {
      const terms = Selectors.ofGroup(data, 'group', group.name);
      if (!terms.includes(null)) choose(terms.join(','));
    });
    const bar = PlannerBlocks.bar();
    bar.node.title = `B differs from A by ${Format.statistic(group.change, NUMBER)} of the norm of ${group.name}.`;
    const cells = FIGURES.map(([figure]) => Dom.element('td', { class: 'number', 'data-figure': figure }));
    const first = Dom.element('th', { scope: 'row' }, Dom.element('div', {}, box, name));
    const node = Dom.element('tr', { 'data-component': group.name }, first, Dom.element('td', { class: 'bars' }, bar.node), ...cells);
    return {
      name: group.name,
      node,
      show(isOn, outcome) {
        box.checked = isOn;
        node.classList.toggle('off', !isOn);
        bar.show(group.change / most, (outcome?.distance_a ?? 0) / most);
        FIGURES.forEach(([figure, , , form], at) => {
          cells[at].textContent = Format.statistic(outcome?.[figure] ?? null, form);
          cells[at].title = Format.raw(outcome?.[figure] ?? null);
        });
      },
    };
  }

  /** A row of switches for the names of an axis, where there is more than one. */
  function labels(section, data, { field, axis, heading, turn }) {
    const names = PlannerOutcome.lengths(data, axis);
    if (names.size < 2) return [];
    const chips = [...names].map(([name, { keys }]) => {
      const box = checkbox(`merge the ${axis} ${name}`, turn(field, name));
      const label = Dom.element('label', { class: 'chip', title: Format.plural(keys, 'key') }, box, Format.shorten(name, 40));
      return { field, name, box, label };
    });
    const text = Dom.element('span', { class: 'master-name' }, heading);
    Dom.one('.labels', section).append(Dom.element('div', { class: 'chips', role: 'group', 'aria-label': heading }, text, ...chips.map(({ label }) => label)));
    return chips;
  }

  return { create };
})();
