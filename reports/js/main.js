// The page at work: what is selected, and who draws again when that changes.
const Page = (() => {
  const PAUSE = 150; // milliseconds without a key stroke before a selector takes effect

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
    const tell = (text) => telling(data, text, show);
    const choose = (text) => {
      Dom.one('#selector').value = text;
      State.changed();
      return tell(text);
    };
    const pick = ({ axes, terms }) => {
      // A name with a comma in it has no selector; no label that a scan writes is of that kind.
      if (!terms.includes(null)) choose(Selectors.withTerms(data, view.text, axes, terms));
    };
    const panels = FIGURES.map(({ section, draw }) => [document.querySelector(`[data-section="${section}"]`), draw])
      .filter(([section]) => section)
      .map(([section, draw]) => Panel.create(section, draw, { view: () => view, pick }));

    Head.show(data);
    Findings.create(Dom.one('[data-section="findings"]'), data, { panels, choose, keys });
    State.register('select', {
      get: () => view.text,
      set: (text) => {
        Dom.one('#selector').value = text;
        return tell(text);
      },
    });
    list();
    const planner = document.querySelector('[data-section="planner"]');
    if (planner) Planner.create(planner, data, { view: () => view, tell: choose });
    await State.restore();
    drawing = Drawing.of(panels);
    listen(choose, tell, drawing);
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

  /** Show a selection, or say why the text is none and leave the page as it is. */
  async function telling(data, text, show) {
    const message = Dom.one('#selector-message');
    const input = Dom.one('#selector');
    const hint = Dom.one('#selector-hint');
    hint.hidden = true;
    try {
      const shown = show(text.trim());
      message.textContent = '';
      input.removeAttribute('aria-invalid');
      await shown;
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

  function listen(choose, tell, drawing) {
    let timer;
    const later = (work) => {
      clearTimeout(timer);
      timer = setTimeout(work, PAUSE);
    };
    const input = Dom.one('#selector');
    input.addEventListener('input', () => later(() => {
      tell(input.value);
      State.changed();
    }));
    for (const button of Dom.all('[data-selector]')) {
      // It would hide what the button promises; before the button's own work, wherever that is.
      button.addEventListener('click', () => { Dom.one('[name="verdict"]').value = ''; }, { capture: true });
      if (!button.closest('.findings')) button.addEventListener('click', () => choose(button.dataset.selector));
    }
    for (const link of Dom.all('a[href^="#"]')) {
      link.addEventListener('click', (event) => {
        event.preventDefault(); // the fragment of the address holds what the page shows
        Findings.lead(Dom.one(link.getAttribute('href')).closest('section'));
      });
    }
    window.addEventListener('resize', () => later(drawing.redraw));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawing.redraw);
    // Paper is white and narrow: figures are drawn for it for as long as the print takes.
    const paper = (isOn) => () => {
      document.documentElement.toggleAttribute('data-paper', isOn);
      drawing.redrawNow();
    };
    window.addEventListener('beforeprint', paper(true));
    window.addEventListener('afterprint', paper(false));
  }

  return { start };
})();

Page.start();
