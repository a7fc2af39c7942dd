// The page at work: what is selected, and who draws again when that changes.
const Page = (() => {
  /** Bring the page to life; `window.mergescope` comes last, for those who wait for it. */
  async function start() {
    const data = Data.decode(await Data.unpack(Dom.one('#scan').textContent));
    const keys = Dom.one('[data-section="keys"]');
    let view = View.of(data, '');
    let drawing = null; // none before the page is as its address says
    const list = listOf(data, keys, () => view);

    /** Select; draws what shows it, and returns when all is drawn. */
    function show(text) {
      view = View.of(data, text);
      list();
      summarise(view);
      return drawing?.redraw();
    }
    const selecting = Selecting.create(data, { show, current: () => view.text, refused: hinting(data) });
    const { tell, choose, pick } = selecting;
    const panels = FIGURES.map(({ section, draw }) => [document.querySelector(`[data-section="${section}"]`), draw])
      .filter(([section]) => section)
      .map(([section, draw]) => Panel.create(section, draw, { view: () => view, pick }));

    Head.show(data);
    Findings.create(Dom.one('[data-section="findings"]'), data, { panels, choose, keys });
    selecting.register();
    list();
    const planner = document.querySelector('[data-section="planner"]');
    if (planner) Planner.create(planner, data, { view: () => view, tell: choose });
    await State.restore();
    drawing = Drawing.of(panels);
    listen(choose);
    Selecting.listen({ tell, drawing, target: (node) => node.closest('section') });
    await drawing.redraw();
    window.mergescope = {
      get scan() {
        return Data.asScan(data);
      },
      evaluate: (text = '') => Data.statisticsOf(data, View.of(data, text).record),
      predict: (entries) => Predict.predict(data, (text) => Selectors.select(data, text), entries),
      isDrawn: drawing.isDone,
    };
  }

  /** The table of keys with its menu of verdicts and its button to save; returns what lists the rows anew. */
  function listOf(data, keys, view) {
    const table = KeyTable.create(keys, data);
    const verdict = Dom.one('[name="verdict"]', keys);
    let listed = [];

    /** The selected rows, or all, and of these the ones with the chosen verdict. */
    function list() {
      const code = data.verdicts.indexOf(verdict.value);
      const rows = view().text ? view().rows : data.all;
      listed = code < 0 ? rows : rows.filter((row) => data.verdict(row) === code);
      table.show(listed);
      Dom.one('#shown').textContent = `${Format.plural(listed.length, 'key')} shown`;
    }

    Controls.register('keys', verdict, list);
    verdict.addEventListener('change', () => {
      list();
      State.changed();
    });
    Dom.one('#save-rows').addEventListener('click', () => Export.csv(data, listed));
    for (const button of Dom.all('[data-verdict]')) {
      button.addEventListener('click', () => {
        verdict.value = button.dataset.verdict;
        list();
        State.changed();
        keys.scrollIntoView();
        verdict.focus({ preventScroll: true });
      });
    }
    return list;
  }

  /** Offers the pattern of raw keys that a text which is no selector may have meant. */
  function hinting(data) {
    const hint = Dom.one('#selector-hint');
    return (text) => {
      hint.hidden = text === null || !data.all.some((row) => data.key(row).includes(text));
      if (text === null) return;
      hint.dataset.selector = Selectors.term('key', text).replace(/^key:(.*)$/s, 'key:*$1*');
      hint.textContent = hint.dataset.selector;
    };
  }

  /** The bar that says what is selected and what the selection is as a whole. */
  function summarise({ data, text, rows, record }) {
    const bar = Dom.one('#selection');
    bar.hidden = !text;
    Dom.one('#selection-text').textContent = text;
    const names = ['relative_change', 'cosine', 'energy_share'];
    const value = (name) => (
      Format.statistic(Statistics.evaluate(name, record, data), data.statistics.get(name))
    );
    Dom.one('#selection-facts').textContent = [
      `${rows.length.toLocaleString('en')} of ${Format.plural(data.size, 'key')}`,
      `${value('numel')} elements`,
      ...names.map((name) => `${data.statistics.get(name).title} ${value(name)}`),
    ].join(' · ');
  }

  function listen(choose) {
    for (const button of Dom.all('[data-selector]')) {
      // It would hide what the button promises; before the button's own work, wherever that is.
      button.addEventListener('click', () => { Dom.one('[name="verdict"]').value = ''; }, { capture: true });
      if (!button.closest('.findings')) button.addEventListener('click', () => choose(button.dataset.selector));
    }
  }

  return { start };
})();

Page.start();
