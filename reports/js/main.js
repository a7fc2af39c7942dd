// The page at work: what is selected, and who draws again when that changes.
const Page = (() => {
  const PAUSE = 150; // milliseconds without a key stroke before a selector takes effect

  /** Draw the page; `window.mergescope` comes last, for those who wait for it. */
  async function start() {
    const data = Data.decode(await Data.unpack(Dom.one('#scan').textContent));
    const table = KeyTable.create(Dom.one('[data-section="keys"]'), data);
    const verdict = Dom.one('[name="verdict"]');
    let view = View.of(data, '');
    let listed = [];

    async function show(text) {
      view = View.of(data, text);
      list();
      summarise(view);
      await drawAll();
    }

    /** The table's rows: the selected ones, or all, and of these the ones with the chosen verdict. */
    function list() {
      const code = data.verdicts.indexOf(verdict.value);
      const rows = (view.text ? view.rows : data.all).filter((row) => code < 0 || data.verdict(row) === code);
      table.show(rows);
      listed = rows;
      Dom.one('#shown').textContent = `${Format.plural(rows.length, 'key')} shown`;
    }
    const pick = ({ axes, terms }) => {
      // A name with a comma in it has no selector; no label that a scan writes is of that kind.
      if (!terms.includes(null)) choose(Selectors.withTerms(data, view.text, axes, terms));
    };
    const choose = (text) => {
      Dom.one('#selector').value = text;
      return tell(data, text, show);
    };
    const panels = FIGURES.map(({ section, draw }) => [document.querySelector(`[data-section="${section}"]`), draw])
      .filter(([section]) => section)
      .map(([section, draw]) => Panel.create(section, draw, { view: () => view, pick }));
    const drawAll = () => Promise.all(panels.map((panel) => panel.redraw()));

    showTotals(data);
    verdict.addEventListener('change', list);
    Dom.one('#save-rows').addEventListener('click', () => Export.csv(data, listed));
    for (const button of Dom.all('[data-verdict]')) {
      button.addEventListener('click', () => {
        verdict.value = button.dataset.verdict;
        list();
        Dom.one('#keys').scrollIntoView();
        verdict.focus({ preventScroll: true });
      });
    }
    listen(choose, (text) => tell(data, text, show), drawAll);
    await show('');
    window.mergescope = {
      get scan() {
        return Data.asScan(data);
      },
      evaluate: (text = '') => Data.statisticsOf(data, View.of(data, text).record),
      predict: (entries) => Predict.predict(data, (text) => Selectors.select(data, text), entries),
    };
  }

  /** Show a selection, or say why the text is none and leave the page as it is. */
  async function tell(data, text, show) {
    const message = Dom.one('#selector-message');
    const input = Dom.one('#selector');
    const hint = Dom.one('#selector-hint');
    hint.hidden = true;
    try {
      await show(text.trim());
      message.textContent = '';
      input.removeAttribute('aria-invalid');
    } catch (error) {
      if (!(error instanceof Selectors.SelectorError)) throw error;
      message.textContent = error.message;
      input.setAttribute('aria-invalid', 'true');
      hint.dataset.selector = Selectors.term('key', text.trim()).replace(/^key:(.*)$/s, 'key:*$1*');
      hint.textContent = hint.dataset.selector;
      hint.hidden = !data.all.some((row) => data.key(row).includes(text.trim()));
    }
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

  /** The numbers of the whole scan, in the head and beside the findings. */
  function showTotals(data) {
    for (const node of Dom.all('[data-total]')) {
      const value = Statistics.evaluate(node.dataset.total, data.total, data);
      node.textContent = Format.statistic(value, data.statistics.get(node.dataset.total));
      node.title = Format.raw(value);
    }
    for (const node of Dom.all('[data-value]')) {
      const entry = data.statistics.get(node.dataset.statistic) ?? { unit: 'elements' };
      const value = node.dataset.value === '' ? null : Number(node.dataset.value);
      node.textContent = Format.statistic(value, entry);
      node.title = [Format.raw(value), entry.title].filter(Boolean).join(' · ');
    }
  }

  function listen(choose, type, drawAll) {
    let timer;
    const later = (work) => {
      clearTimeout(timer);
      timer = setTimeout(work, PAUSE);
    };
    const input = Dom.one('#selector');
    input.addEventListener('input', () => later(() => type(input.value)));
    for (const button of Dom.all('[data-selector]')) {
      button.addEventListener('click', () => {
        Dom.one('[name="verdict"]').value = ''; // it would hide what the button promises
        choose(button.dataset.selector);
      });
    }
    window.addEventListener('resize', () => later(drawAll));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
    // Paper is white: figures are drawn in light colours for as long as the print takes.
    window.addEventListener('beforeprint', () => {
      document.documentElement.dataset.theme = 'light';
      drawAll();
    });
    window.addEventListener('afterprint', () => {
      delete document.documentElement.dataset.theme;
      drawAll();
    });
  }

  return { start };
})();

Page.start();
