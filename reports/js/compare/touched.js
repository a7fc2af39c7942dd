// Who touched what: a table of categories by scans, with the words that sum it up. A scan touched a category
// if it changed some key of it by more than rounding. How changes of two scans lie to each other, no scan holds.
const Touched = (() => {
  const SHOWN = 30; // rows; a button asks for the rest
  const STATISTIC = 'relative_change';

  /** Connect the section; `view()` is what the page shows, `pick` takes the choice of a category. */
  function create(section, data, { view, pick }) {
    const controls = Object.fromEntries(Dom.all('[name]', section).map((control) => [control.name, control]));
    const head = Dom.one('thead', section);
    const body = Dom.one('tbody', section);
    let isWhole = false;

    function draw() {
      const { axis, touched } = controls;
      const found = rows(view(), axis.value).filter((row) => isWanted(row, touched.value, data));
      const shown = isWhole ? found : found.slice(0, SHOWN);
      const most = Math.max(...found.flatMap(({ values }) => values.map((value) => value ?? 0)), 0);
      head.replaceChildren(headings(data, axis));
      body.replaceChildren(...shown.map((row) => line(row, { data, most, isChosen: view().text !== '' && row.isSelected }, () => pick({
        axes: [axis.value === 'group' ? 'component' : axis.value], terms: Selectors.ofGroup(data, axis.value, row.name),
      }))));
      Dom.one('.note', section).textContent = found.length ? '' : 'No category is of that kind.';
      controls.whole.hidden = found.length <= SHOWN;
      controls.whole.textContent = isWhole ? 'Show fewer' : `Show all ${found.length}`;
      controls.whole.setAttribute('aria-pressed', isWhole);
    }

    for (const control of [controls.axis, controls.touched]) {
      Controls.register('touched', control, draw);
      control.addEventListener('change', () => {
        draw();
        State.changed();
      });
    }
    controls.whole.addEventListener('click', () => {
      isWhole = !isWhole;
      draw();
    });
    return { redraw: draw };
  }

  /** All categories of an axis: those that one scan alone touched first, then by the largest change. */
  function rows(view, axis) {
    const groups = View.groups(view, axis, view.around([axis === 'group' ? 'component' : axis]));
    const titles = View.shortNames(groups.map(({ name }) => name));
    const count = view.data.scans.length;
    const found = groups.map((group) => ({
      ...group, title: titles.get(group.name), values: group.record.values(STATISTIC), by: group.record.touchedBy(),
    }));
    const rank = ({ by }) => (by.length === 0 ? count + 1 : by.length);
    const most = ({ values }) => Columns.ends(values)[1] ?? -1;
    return found.sort((one, other) => (
      rank(one) - rank(other) || most(other) - most(one) || (one.title < other.title ? -1 : 1)
    ));
  }

  function isWanted({ by }, wanted, { scans }) {
    if (wanted === 'one') return by.length === 1;
    if (wanted === 'some') return by.length > 0 && by.length < scans.length;
    if (wanted === 'all') return by.length === scans.length;
    return wanted === '' || by.length === 0;
  }

  function headings(data, axis) {
    const cell = (text, attributes = {}) => Dom.element('th', { scope: 'col', ...attributes }, text);
    return Dom.element(
      'tr', {},
      cell(axis.selectedOptions[0].textContent),
      ...data.scans.map((scan) => cell(scan.letter, { class: 'number', title: Columns.title(scan, 120) })),
      cell('touched by', { class: 'by' }),
    );
  }

  function line(row, { data, most, isChosen }, choose) {
    const button = Dom.element('button', { type: 'button', 'aria-pressed': isChosen, title: row.name }, Format.shorten(row.title, 32));
    button.addEventListener('click', choose);
    const node = Dom.element(
      'tr', {},
      Dom.element('th', { scope: 'row' }, button),
      ...data.scans.map((scan) => cellOf(row, scan, data, most)),
      Dom.element('td', { class: 'by' }, byWhom(row, data)),
    );
    if (!row.isSelected) node.className = 'aside';
    return node;
  }

  /** The relative change over a bar of that length, and how many keys changed. */
  function cellOf({ record, values }, scan, data, most) {
    const { compared, touched } = record.keys(scan.place);
    if (!compared) return Dom.element('td', { class: 'number none' }, 'not compared');
    const entry = data.statistics.get(STATISTIC);
    const value = values[scan.place];
    const title = `${Columns.title(scan, 120)}: ${Columns.counts({ compared, touched })}; ${entry.title} ${Format.raw(value)}`;
    if (!touched) return Dom.element('td', { class: 'number none', title }, value ? 'rounding' : 'none');
    const counts = `${touched.toLocaleString('en')} of ${compared.toLocaleString('en')}`;
    const bar = Dom.element('span', { class: 'length', 'aria-hidden': 'true' });
    bar.style.width = `${most > 0 ? (100 * (value ?? 0)) / most : 0}%`;
    bar.style.background = Columns.colour(scan, Theme.current());
    return Dom.element('td', { class: 'number', title }, Dom.element('small', {}, counts), Dom.element('b', {}, Format.statistic(value, entry)), bar);
  }

  function byWhom({ by, record }, { scans }) {
    const words = Columns.listed(by.map((place) => scans[place].letter));
    if (!record.isComplete) return words ? `${words}, as far as compared` : 'none that compares it whole';
    if (!by.length) return 'none';
    if (by.length === scans.length) return 'all';
    return by.length === 1 ? `only ${words}` : words;
  }

  return { create, rows };
})();
