// The grid: what stands beneath its pictures, and the order and size of its columns. The pictures themselves
// are the page's own markup.
const Grid = (() => {
  const LABEL = { toward_b: 'toward B', neither: 'neither' };

  /** Connect the section; `changed()` is called when what the page measures on is another. */
  function create(section, data, { changed }) {
    const controls = Object.fromEntries(Dom.all('[name]', section).map((control) => [control.name, control]));
    const table = Dom.one('table', section);
    const place = Dom.one('.bars', section);
    let order = [];

    const statistic = (column) => column.statistics[controls.statistic?.value] ?? null;
    const mean = (column, measure) => data.summary(column.selector, controls.measured.value + measure).mean;

    function draw() {
      if (controls.size) table.parentElement.dataset.size = controls.size.value;
      const rows = [...effects(data, controls.measured.value), weights(data, controls.statistic?.value)];
      place.replaceChildren(...rows.filter(Boolean));
      arrange();
      hint();
      Dom.one('.note', section).textContent = note(data);
    }

    /** Put the columns in the order asked for, in every row; A and B stay first. */
    function arrange() {
      const by = controls.order.value;
      const value = by === 'statistic' ? statistic : (column) => mean(column, by);
      const sign = by === 'statistic' && data.statistics.get(controls.statistic?.value)?.ascending ? -1 : 1;
      const wanted = by !== 'given' ? [...data.columns].sort((one, other) => descending(value(one), value(other), sign)) : data.columns;
      order = [0, 1, ...wanted.map((column) => column.place)];
      for (const row of Dom.all('tr', table)) {
        const cells = new Map(Dom.all('[data-column]', row).map((cell) => [Number(cell.dataset.column), cell]));
        const isInOrder = [...cells.keys()].every((its, at) => its === order[at]);
        if (!isInOrder) row.append(...order.map((its) => cells.get(its)));
      }
    }

    /** What was measured of a picture, for those who point at it. */
    function hint() {
      for (const button of Dom.all('.picture', table)) {
        const { column, row } = button.parentElement.dataset;
        const its = column > 1 ? data.row(data.columns[column - 2].selector, data.seeds[row]) : null;
        if (its) button.title = Object.keys(LABEL).map((name) => `${LABEL[name]} ${Experiment.number(its[controls.measured.value + name])}`).join(', ');
      }
    }

    for (const control of Object.values(controls)) {
      const follow = () => {
        draw();
        if (control === controls.measured) changed();
      };
      Controls.register('grid', control, follow);
      control.addEventListener('change', () => {
        follow();
        State.changed();
      });
    }
    // What is wider than its box has to scroll in it; what is not scrolls with the page.
    const box = table.parentElement;
    const fit = () => box.toggleAttribute('data-fits', table.offsetWidth <= box.clientWidth);
    new ResizeObserver(fit).observe(box);
    new ResizeObserver(fit).observe(table);
    draw();
    return { draw, order: () => order, measured: () => data.views.find(({ prefix }) => prefix === controls.measured.value) };
  }

  /** The largest first, undefined last, equals as they stood. */
  function descending(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (other - one);
  }

  /** The two rows of what was measured: one scale for both, since they are legs of one triangle. */
  function effects(data, prefix) {
    const names = Object.keys(LABEL);
    const found = names.map((name) => data.columns.map(({ selector }) => ({
      ...data.summary(selector, prefix + name), dots: data.seeds.length > 1 ? data.values(selector, prefix + name) : [],
    })));
    const at = Bars.scale(found.flat().flatMap(({ low, high, mean, dots }) => [low, high, mean, ...dots]), [0, 1]);
    return names.map((name, row) => {
      const entry = data.effects.get(name);
      const known = name === 'toward_b' ? [0, 1] : [0, 0];
      return line(LABEL[name], `${entry.symbol}: ${entry.meaning}`, name, [
        ...known.map((value) => [Bars.bar({ at, from: 0, value, marks: [0, 1], colour: 'known' }), words(String(value), '')]),
        ...found[row].map(({ mean, low, high, dots, n }) => [
          Bars.bar({ at, from: 0, value: mean, low, high, dots, marks: [0, 1], colour: name }),
          words(Experiment.number(mean), Experiment.reach({ low, high }), title(mean, low, high, n)),
        ]),
      ]);
    });
  }

  /** The row of the statistic of the weights. */
  function weights(data, name) {
    const entry = data.statistics.get(name);
    if (!entry) return null;
    const values = data.columns.map(({ statistics }) => statistics[name] ?? null);
    const from = entry.neutral ?? 0;
    const at = Bars.scale(values, [from]);
    const blank = ['', ''];
    return line(entry.title, `${entry.symbol}: ${entry.meaning}`, 'weights', [
      blank, blank,
      ...values.map((value) => [
        Bars.bar({ at, from, value, marks: [from], colour: 'weights' }), words(Format.statistic(value, entry), '', Format.raw(value)),
      ]),
    ]);
  }

  function line(label, meaning, kind, cells) {
    const head = Dom.element('th', { scope: 'row' }, Dom.element('abbr', { title: meaning }, label));
    return Dom.element('tr', { class: kind }, head, ...cells.map((parts, place) => (
      Dom.element('td', { 'data-column': place, ...(place < 2 && { class: place ? 'parent' : 'parent a' }) }, ...parts)
    )));
  }

  function words(value, reach, hint = '') {
    return Dom.element('span', { class: 'number', ...(hint && { title: hint }) }, value, ...(reach ? [' ', Dom.element('small', {}, reach)] : []));
  }

  function title(mean, low, high, n) {
    if (mean === null) return 'undefined';
    const interval = low === null ? 'no interval' : `95 %: ${Format.number(low)} … ${Format.number(high)}`;
    return `${Format.raw(mean)}, ${interval}, over ${Format.plural(n, 'seed')}`;
  }

  function note(data) {
    const several = data.seeds.length > 1;
    return [
      'The two hairlines are A and B: bars are in lengths of the way between them.',
      several && 'A bar is the mean over the seeds, the line on it its 95 % interval, a dot a seed.',
    ].filter(Boolean).join(' ');
  }

  return { create };
})();
