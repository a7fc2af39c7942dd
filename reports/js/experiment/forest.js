// The rank correlation of every statistic with one effect, with its interval: a table whose rows are choices
// for the scatter beside it.
const Forest = (() => {
  /** Fill `place` with the correlations of `effect`; `choose(statistic)` is called for the row that is clicked. */
  function show(place, data, { statistic, effect }, choose) {
    const found = data.correlations.filter((its) => its.effect === effect && data.statistics.has(its.statistic));
    const rows = [...found].sort((one, other) => size(other) - size(one));
    const head = Dom.element('tr', {}, ...['statistic', 'Spearman’s ρ', '', '95 %'].map((text, at) => (
      text || at === 0 ? Dom.element('th', { scope: 'col' }, text) : Dom.element('td')
    )));
    const isThere = rows.some(({ spearman }) => spearman !== null); // and no column of dashes
    place.replaceChildren(isThere ? Dom.element(
      'table', {}, Dom.element('thead', {}, head),
      Dom.element('tbody', {}, ...rows.map((row) => line(data, row, row.statistic === statistic, choose))),
    ) : Dom.element('p', { class: 'note' }, 'No statistic could be correlated with it.'));
  }

  const size = ({ spearman }) => (spearman === null ? -1 : Math.abs(spearman));
  const at = (value) => 50 + 50 * value;

  function line(data, { statistic, spearman, low, high, n }, isChosen, choose) {
    const entry = data.statistics.get(statistic);
    const button = Dom.element('button', { type: 'button', 'aria-pressed': isChosen, title: `${entry.symbol}: ${entry.meaning}` }, entry.title);
    button.addEventListener('click', () => choose(statistic));
    const interval = low === null ? Format.UNDEFINED : `${Experiment.number(low)} … ${Experiment.number(high)}`;
    return Dom.element(
      'tr', {},
      Dom.element('th', { scope: 'row' }, button),
      Dom.element('td', { class: 'drawn' }, Bars.bar({ at, from: 0, value: spearman, low, high, marks: [-1, 0, 1], colour: 'rho' })),
      Dom.element('td', { class: 'number', title: `over ${Experiment.categories(n)}` }, Experiment.number(spearman)),
      Dom.element('td', { class: 'interval' }, interval),
    );
  }

  return { show };
})();
