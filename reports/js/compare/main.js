// The page of several scans at work: what is selected, and who draws again when that changes.
const ComparePage = (() => {
  const FIGURES = [
    { section: 'ranking', draw: CompareRanking.draw },
    { section: 'map', draw: CompareMap.draw },
    { section: 'profile', draw: CompareProfile.draw },
    { section: 'scatter', draw: CompareScatter.draw },
    { section: 'treemap', draw: CompareTreemap.draw },
    { section: 'histogram', draw: CompareHistogram.draw },
  ];

  /** Bring the page to life; `window.mergescope` comes last, for those who wait for it. */
  async function start() {
    const data = Scans.align(await Promise.all(Dom.all('.scan').map(decode)));
    const whole = View.of(data, '');
    const keys = Dom.one('[data-section="keys"]');
    let view = whole;
    let drawing = null; // none before the page is as its address says
    const list = listOf(data, keys, () => view);

    /** Select; draws what shows it, and returns when all is drawn. */
    function show(text) {
      view = text ? View.of(data, text) : whole;
      list();
      summarise(view);
      touched.redraw();
      return drawing?.redraw();
    }
    const selecting = Selecting.create(data, { show, current: () => view.text });
    const { tell, choose, pick } = selecting;
    const touched = Touched.create(Dom.one('[data-section="touched"]'), data, { view: () => view, pick });
    const panels = FIGURES.map(({ section, draw }) => (
      Panel.create(Dom.one(`[data-section="${section}"]`), draw, { view: () => view, pick })
    ));

    showTotals(data);
    showSentences(Sentences.make(whole, data), data, choose);
    selecting.register();
    list();
    touched.redraw();
    await State.restore();
    drawing = Drawing.of(panels);
    Dom.one('#selection button').addEventListener('click', () => choose(''));
    Selecting.listen({ tell, drawing, target: (node) => node });
    await drawing.redraw();
    window.mergescope = {
      get scans() {
        return data.scans.map((scan) => Data.asScan(scan.data));
      },
      evaluate: (place, text = '') => {
        const its = data.scans[place].data;
        return Data.statisticsOf(its, View.of(its, text).record);
      },
      predict: (place, entries) => {
        const its = data.scans[place].data;
        return Predict.predict(its, (text) => Selectors.select(its, text), entries);
      },
      isDrawn: drawing.isDone,
    };
  }

  async function decode(node) {
    const { letter, name } = node.dataset;
    return { letter, name, data: Data.decode(await Data.unpack(node.textContent)) };
  }

  /** The table of keys with its menus; returns what lists the rows anew. */
  function listOf(data, keys, view) {
    const [statistic, touched] = ['statistic', 'touched'].map((name) => Dom.one(`[name="${name}"]`, keys));
    const columns = CompareKeys.columns(data, () => statistic.value);
    const table = KeyTable.create(keys, data, { columns, first: data.scans[0].letter });

    let listed = [];

    /** The selected rows, or all, and of these those that were touched as asked. */
    function list() {
      listed = CompareKeys.touched(data, view().text ? view().rows : data.all, touched.value);
      table.show(listed);
      Dom.one('#shown').textContent = `${Format.plural(listed.length, 'key')} shown`;
    }

    Dom.one('#save-rows').addEventListener('click', () => {
      const text = CompareKeys.csv(data, listed, statistic.value);
      Export.save(`keys-${statistic.value}.csv`, new Blob([text], { type: 'text/csv' }));
    });

    for (const control of [statistic, touched]) {
      Controls.register('keys', control, list);
      control.addEventListener('change', () => {
        list();
        State.changed();
      });
    }
    return list;
  }

  /** The bar that says what is selected, and how far each model moved it. */
  function summarise({ data, text, rows, record }) {
    Dom.one('#selection').hidden = !text;
    Dom.one('#selection-text').textContent = text;
    const entry = data.statistics.get('relative_change');
    Dom.one('#selection-facts').textContent = [
      `${rows.length.toLocaleString('en')} of ${Format.plural(data.size, 'key')}`,
      ...data.scans.map(({ letter, place }) => `${letter} ${Format.statistic(record.value(place, entry.name), entry)}`),
    ].join(' · ');
  }

  /** The numbers of every scan as a whole, in the head. */
  function showTotals(data) {
    for (const node of Dom.all('[data-total]')) {
      const { data: its } = data.scans[Number(node.closest('[data-place]').dataset.place)];
      const value = Statistics.evaluate(node.dataset.total, its.total, its);
      node.textContent = Format.statistic(value, its.statistics.get(node.dataset.total));
      node.title = Format.raw(value);
    }
    for (const node of Dom.all('[data-place] .dot.own')) {
      const scan = data.scans[Number(node.closest('[data-place]').dataset.place)];
      node.style.background = Columns.colour(scan, Theme.current());
    }
  }

  function showSentences(sentences, data, choose) {
    const items = sentences.map(({ text, value, axis, name }) => {
      const terms = axis ? Selectors.ofGroup(data, axis, name) : [null];
      const parts = [Dom.element('span', { class: 'value' }, value), Dom.element('span', {}, text)];
      if (!terms.includes(null)) {
        const button = Dom.element('button', { type: 'button' }, 'Show these keys');
        button.addEventListener('click', () => choose(terms.join(',')));
        parts.push(button);
      }
      return Dom.element('li', {}, ...parts);
    });
    Dom.one('.findings').replaceChildren(...items);
  }

  return { start };
})();

ComparePage.start();
