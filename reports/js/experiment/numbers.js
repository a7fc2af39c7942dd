// All numbers of the experiment, a row a category: what was measured, and the scan's own numbers beside it.
const Numbers = (() => {
  const OF_WAY = ['toward_b', 'neither', 'moved']; // on latents, pixels or features
  const OF_PICTURE = ['ssim_a', 'ssim_b', 'histogram_a', 'histogram_b'];
  const OF_WEIGHTS = ['relative_change', 'energy_share', 'cosine', 'changed_fraction'];

  function create(section, data) {
    const place = Dom.one('.numbers', section);
    Dom.one('[name=save]', section).addEventListener('click', () => {
      Export.save('experiment.csv', new Blob([csv(data)], { type: 'text/csv' }));
    });

    function draw(measured) {
      const of = OF_WAY.map((name) => measured.prefix + name);
      const way = of.filter((name) => data.columns.some(({ selector }) => data.summary(selector, name).mean !== null));
      const picture = OF_PICTURE.filter((name) => data.columns.some(({ selector }) => data.summary(selector, name).mean !== null));
      const weights = OF_WEIGHTS.filter((name) => data.statistics.has(name));
      const title = (name) => data.effects.get(name.slice(name.startsWith(measured.prefix) ? measured.prefix.length : 0));
      const groups = [[`in ${measured.title}`, way.length], ['pictures', picture.length], ['weights', weights.length]].filter(([, span]) => span);
      const above = Dom.element('tr', {}, Dom.element('td', { colspan: 2 }), ...groups.map(([text, colspan]) => Dom.element('th', { scope: 'colgroup', colspan }, Dom.element('span', {}, text))));
      const head = Dom.element(
        'tr', {}, heading('category', ''), heading('keys', 'tensors that are taken from B'),
        ...way.map((name) => heading(title(name).title, title(name).meaning)),
        ...picture.map((name) => heading(data.effects.get(name).title, data.effects.get(name).meaning)),
        ...weights.map((name) => heading(data.statistics.get(name).title, data.statistics.get(name).meaning)),
      );
      const rows = data.columns.map(({ selector, keys, statistics }) => Dom.element(
        'tr', {}, Dom.element('th', { scope: 'row' }, Dom.element('bdi', {}, selector)), cell(keys.toLocaleString('en')),
        ...[...way, ...picture].map((name) => measure(data.summary(selector, name))),
        ...weights.map((name) => cell(Format.statistic(statistics[name] ?? null, data.statistics.get(name)), Format.raw(statistics[name]))),
      ));
      place.replaceChildren(Dom.element('table', {}, Dom.element('thead', {}, above, head), Dom.element('tbody', {}, ...rows, parents(data, way, picture, weights))));
      Dom.one('.meaning', section).textContent = data.seeds.length > 1 ? 'Means over the seeds, ± half of their 95 % interval.' : '';
    }
    return { draw };
  }

  /** B against A, as the measure of what is much: no category can be expected to go further. */
  function parents(data, way, picture, weights) {
    const mean = (name) => {
      const values = data.seeds.map((seed) => data.parent(seed)?.[name] ?? null).filter((value) => value !== null);
      return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    };
    const known = { ssim_a: mean('ssim'), ssim_b: 1, histogram_a: mean('histogram'), histogram_b: 0 };
    return Dom.element(
      'tr', { class: 'aside' }, Dom.element('th', { scope: 'row' }, 'B itself'), cell(''),
      ...way.map((name) => cell(name.endsWith('neither') ? '0' : '1')),
      ...picture.map((name) => cell(Number.isInteger(known[name]) ? String(known[name]) : Experiment.number(known[name]))),
      ...weights.map(() => cell('')),
    );
  }

  const heading = (text, title) => Dom.element('th', { scope: 'col', ...(title && { title }) }, text);
  const cell = (text, title = '') => Dom.element('td', title && { title }, text);

  function measure({ mean, low, high }) {
    const reach = Experiment.reach({ low, high });
    return Dom.element('td', { title: Format.raw(mean) }, Experiment.number(mean), ...(reach ? [' ', Dom.element('small', {}, reach)] : []));
  }

  /** A row for every category and seed (RFC 4180, lines end in LF): full precision, undefined left empty. */
  function csv({ document }) {
    const [first] = document.rows;
    const names = Object.keys(first ?? {});
    const text = (value) => (typeof value === 'string' ? Export.cell(value) : String(value ?? ''));
    const lines = document.rows.map((row) => names.map((name) => text(row[name])).join(','));
    return [names.join(','), ...lines, ''].join('\n');
  }

  return { create, csv };
})();
