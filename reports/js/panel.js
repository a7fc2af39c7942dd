// One figure in its section of the page: reads the section's controls, has the figure drawn, and
// writes the words that belong to it. Knows no figure by name.
const Panel = (() => {
  const CONFIG = { displayModeBar: false, showTips: false };
  const WITHOUT_PLOTLY = 'plotly.js could not be loaded; the tables of this page work without it.';
  const MARGIN = 200; // pixels beyond the window's edge that count as in sight

  /**
   * Connect a section with the function that draws its figure. `view()` is what the page shows;
   * `pick({ axes, terms })` is called when a reader chooses a part of the figure.
   */
  function create(section, draw, { view, pick }) {
    const place = Dom.one('.figure', section);
    const controls = Dom.all('[name]', section);
    const drawn = (theme, width) => draw(view(), Controls.values(controls), { theme, width });
    let figure = null;
    let isDrawn = false;
    let isStale = false;

    async function redraw() {
      if (!window.Plotly) await Library.load();
      isStale = false;
      const theme = Theme.current();
      const width = place.clientWidth;
      figure = drawn(theme, width);
      describe(section, controls, figure, view(), pick);
      if (figure.empty || !window.Plotly) {
        if (isDrawn) Plotly.purge(place);
        isDrawn = false;
        place.replaceChildren(figure.empty ?? WITHOUT_PLOTLY);
        return;
      }
      if (!isDrawn) place.replaceChildren();
      const layout = { template: theme.template, width, ...figure.layout };
      place.toggleAttribute('data-wide', layout.width > width); // it scrolls in its own box
      if (layout.width > width) place.tabIndex = 0;
      else place.removeAttribute('tabindex');
      const drawing = Plotly.react(place, figure.data, layout, CONFIG);
      // Before the wait: the next drawing may begin while this one ends.
      if (!isDrawn) {
        place.on('plotly_click', choose);
        place.on('plotly_treemapclick', (event) => {
          choose(event);
          return false; // a click selects there too, and does not zoom
        });
      }
      isDrawn = true;
      await drawing;
    }

    function choose({ points: [point] }) {
      const choice = figure.pick(point);
      if (choice) pick(choice);
    }

    /** Draw again in a moment, once for any number of switches; the first drawing is the page's. */
    function redrawSoon() {
      if (figure === null || isStale) return;
      isStale = true;
      setTimeout(() => isStale && redraw());
    }

    Labels.listen(place, () => figure, pick);
    for (const control of controls) {
      control.addEventListener(control.matches('button') ? 'click' : 'change', () => {
        if (control.matches('button')) control.setAttribute('aria-pressed', !Controls.isPressed(control));
        redraw();
        State.changed();
      });
      Controls.register(section.dataset.section, control, redrawSoon);
    }
    Export.buttons(section, drawn);
    return {
      section,
      redraw,
      isInSight: () => {
        const { top, bottom } = section.getBoundingClientRect();
        return top < window.innerHeight + MARGIN && bottom > -MARGIN;
      },
      /** Put switches where a figure shows something; a value that they do not offer changes nothing. */
      turn: (wanted) => {
        for (const control of controls.filter(({ name }) => name in wanted)) {
          if (Controls.offers(control, wanted[control.name])) Controls.put(control, wanted[control.name]);
        }
      },
      offers: (name, value) => controls.some((control) => control.name === name && Controls.offers(control, value)),
    };
  }

  /** What stands around the figure: the statistic's meaning, notes, the text for screen readers. */
  function describe(section, controls, figure, view, pick) {
    const find = (name) => controls.find((control) => control.name === name);
    const place = Dom.one('.figure', section);
    place.setAttribute('role', 'img');
    place.setAttribute('aria-label', figure.label ?? figure.empty);
    Dom.one('.note', section).textContent = figure.note ?? '';
    if (find('statistic')) {
      const { symbol, meaning } = view.data.statistics.get(find('statistic').value);
      Dom.one('.meaning', section).textContent = `${symbol}: ${meaning}`;
    }
    if (find('logarithmic')) find('logarithmic').disabled = !figure.canLog;
    if (find('whole')) {
      find('whole').hidden = !figure.more;
      find('whole').textContent = Controls.isPressed(find('whole')) ? 'Show fewer' : `Show all ${figure.more}`;
    }
    fill(section.querySelector('.groups'), figure.groups, (group) => item(group, pick));
    fill(section.querySelector('.legend'), figure.legend, swatch);
    Crosstab.show(section, figure.table, pick);
  }

  /** Put things into a list of the page, where the section has one. */
  function fill(list, things = [], make = null) {
    if (list) list.replaceChildren(...things.map(make));
  }

  function swatch({ title, colour }) {
    const dot = Dom.element('span', { class: 'dot', 'aria-hidden': 'true' });
    dot.style.background = colour;
    return Dom.element('li', {}, dot, Format.shorten(title, 28));
  }

  /** A group as a line of text with a button: what a bar is to those who use a pointer. */
  function item({ title, value, isSelected, choose }, pick) {
    const button = Dom.element('button', { type: 'button', 'aria-pressed': isSelected }, title);
    button.addEventListener('click', () => pick(choose()));
    return Dom.element('li', {}, button, ` ${value}`);
  }

  return { create };
})();
