// The cells of the grid by the places of column and seed, and the way from one to the next: for the keyboard,
// to which all pictures are one stop, and for the viewer.
const Cells = (() => {
  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** Connect the table; `order()` is the places of its columns as they stand, `look(place, at)` opens a picture. */
  function create(table, { order, look }) {
    const cell = (place, at) => table.querySelector(`td[data-column="${place}"][data-row="${at}"]`);
    const button = (place, at) => cell(place, at)?.querySelector('button') ?? null;

    /** Where a step leads; null at the edge. */
    function next({ place, at }, [across, down]) {
      const places = order();
      const there = { place: places[places.indexOf(place) + across], at: at + down };
      return there.place === undefined || !cell(there.place, there.at) ? null : there;
    }

    function ofButton(node) {
      const { column, row } = node?.closest('td')?.dataset ?? {};
      return row === undefined ? null : { place: Number(column), at: Number(row) };
    }

    /** Make a picture the one that the keyboard stops at. */
    function stopAt(node) {
      for (const its of buttons) its.tabIndex = its === node ? 0 : -1;
    }

    const buttons = Dom.all('td[data-row] button', table);
    if (buttons.length) stopAt(buttons[0]);
    table.addEventListener('focusin', ({ target }) => buttons.includes(target) && stopAt(target));
    table.addEventListener('click', ({ target }) => {
      const its = ofButton(target.closest('button'));
      if (its) look(its.place, its.at);
    });
    table.addEventListener('keydown', (event) => {
      const its = WAYS[event.key] && ofButton(event.target);
      if (!its) return;
      event.preventDefault();
      let there = next(its, WAYS[event.key]);
      while (there && !button(there.place, there.at)) there = next(there, WAYS[event.key]); // one without a picture
      if (there) button(there.place, there.at).focus();
    });
    return { cell, button, next };
  }

  return { WAYS, create };
})();
