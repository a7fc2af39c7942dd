// A picture large, beside A's and B's of the same seed, with what was measured of it. Goes through the grid by
// arrow keys and buttons, in the order in which the grid stands.
const Viewer = (() => {
  const BUTTONS = { left: 'ArrowLeft', right: 'ArrowRight', up: 'ArrowUp', down: 'ArrowDown' };
  const ROWS = ['toward_b', 'neither', 'moved', 'ssim_a', 'ssim_b', 'histogram_a', 'histogram_b'];

  /** Connect the dialog; `table` holds the pictures, `order()` the places of its columns. */
  function create(dialog, table, data, { order }) {
    const find = (selector) => Dom.one(selector, dialog);
    const cells = Cells.create(table, { order, look });
    const show = Wipe.create(find('.stage'), find('[name=wipe]'));
    const sides = Dom.all('[name=sides]', dialog);
    const { width, height } = data.document.conditions;
    if (width && height) dialog.style.setProperty('--ratio', width / height);
    let open = null; // { place, at }: the column's and the seed's place in the document

    const title = (place) => (place < 2 ? 'AB'[place] : data.columns[place - 2].selector);

    /** The picture of a column and a seed; null if there is none. */
    function picture(place, at) {
      const image = cells.cell(place, at)?.querySelector('img');
      return image ? { source: image.src, name: image.alt, title: title(place) } : null;
    }

    function draw() {
      const { place, at } = open;
      const seed = data.seeds[at];
      const isParent = place < 2;
      const [a, b, m] = [0, 1, place].map((its) => picture(its, at));
      find('h2').replaceChildren(
        Dom.element('bdi', {}, isParent ? `${title(place)} itself` : title(place)), Dom.element('span', {}, `seed ${seed}`),
      );
      find('.sides').hidden = isParent;
      compare(isParent ? [a, b] : Array.from(sides.find(({ checked }) => checked).value, (letter) => ({ a, b, m })[letter]));
      find('.three').replaceChildren(...(isParent ? [a, b] : [a, m, b]).filter(Boolean).map(thumb));
      find('dl').replaceChildren(...(isParent ? ofParents(data.parent(seed)) : ofRow(data, data.row(title(place), seed))));
      for (const [name, key] of Object.entries(BUTTONS)) find(`[name=${name}]`).disabled = !cells.next(open, Cells.WAYS[key]);
    }

    /** The two pictures on one another, or why one of them is missing. */
    function compare([left, right]) {
      const isThere = Boolean(left && right);
      find('.stage').hidden = !isThere;
      find('.wiper').hidden = !isThere;
      find('.message').textContent = isThere ? '' : why(open);
      if (isThere) show(left, right);
    }

    function why({ place, at }) {
      const failed = [place, 0, 1].map((its) => [its, cells.cell(its, at)?.querySelector('.why')]).find(([, its]) => its);
      return failed ? `${title(failed[0])} failed: ${failed[1].textContent}` : 'There is no picture.';
    }

    function go(way) {
      const there = cells.next(open, way);
      if (!there) return;
      open = there;
      draw();
    }

    /** Show a picture; the keyboard comes back to the grid where the reader left it. */
    function look(place, at) {
      open = { place, at };
      draw();
      if (!dialog.open) dialog.showModal();
      find('h2').focus({ preventScroll: true });
    }

    dialog.addEventListener('keydown', (event) => {
      if (!Cells.WAYS[event.key] || event.target.matches('input')) return; // inputs have keys of their own
      event.preventDefault();
      go(Cells.WAYS[event.key]);
    });
    for (const [name, key] of Object.entries(BUTTONS)) find(`[name=${name}]`).addEventListener('click', () => go(Cells.WAYS[key]));
    for (const side of sides) side.addEventListener('change', draw);
    find('[name=close]').addEventListener('click', () => dialog.close());
    dialog.addEventListener('click', ({ target }) => target === dialog && dialog.close()); // outside of its frame
    dialog.addEventListener('close', () => cells.button(open.place, open.at)?.focus());
    return { look };
  }

  function thumb({ source, name, title }) {
    return Dom.element('figure', {}, Dom.element('img', { src: source, alt: name }), Dom.element('figcaption', {}, Dom.element('bdi', {}, title)));
  }

  /** What was measured of a picture, line by line. */
  function ofRow(data, row) {
    if (!row || row.error) return [];
    const own = ROWS.map((name) => [name, data.effects.get(name)]);
    const others = data.views.filter(({ prefix }) => prefix).flatMap(({ prefix }) => ['toward_b', 'neither'].map((name) => [prefix + name, data.effects.get(name)]));
    return [...own, ...others].map(([name, { symbol, meaning }]) => fact(Experiment.title(data, name), row[name], `${symbol}: ${meaning}`));
  }

  /** How far A and B are from each other. */
  function ofParents(parent) {
    return [
      fact('SSIM of A and B', parent?.ssim), fact('colours of A and B apart', parent?.histogram), fact('latents apart', parent?.distance, '‖x_B − x_A‖ / ‖x_A‖'),
    ];
  }

  function fact(name, value, title = '') {
    const term = title ? Dom.element('abbr', { title }, name) : name;
    return Dom.element('div', {}, Dom.element('dt', {}, term), Dom.element('dd', {}, Experiment.number(value)));
  }

  return { create };
})();
