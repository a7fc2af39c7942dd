// A figure of rows and columns as a table of text. It is made when a reader opens it: most never do.
const Crosstab = (() => {
  /** Put a figure's table { caption, columns, rows, text } where the section has a place for one. */
  function show(section, table, pick) {
    const details = section.querySelector('details.crosstab');
    if (!details) return;
    details.hidden = !table;
    const place = Dom.one('div', details);
    const fill = () => place.replaceChildren(...(details.open && table ? [element(table, pick)] : []));
    details.ontoggle = fill;
    fill();
  }

  function element({ caption, columns, rows, text }, pick) {
    const head = Dom.element('tr', {}, Dom.element('td'), ...columns.map((column) => heading('col', column, pick)));
    const line = (row, down) => Dom.element(
      'tr', {}, heading('row', row, pick), ...columns.map((_, across) => Dom.element('td', {}, text(down, across))),
    );
    return Dom.element(
      'table', {}, Dom.element('caption', { class: 'unseen' }, caption),
      Dom.element('thead', {}, head), Dom.element('tbody', {}, ...rows.map(line)),
    );
  }

  function heading(scope, { name, isSelected, choose }, pick) {
    const button = Dom.element('button', { type: 'button', 'aria-pressed': isSelected }, name);
    button.addEventListener('click', () => pick(choose()));
    return Dom.element('th', { scope }, button);
  }

  return { show };
})();
